"""Classifies and describes why a connection ended or could not be made."""

import re
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class DisconnectKind(StrEnum):
    """Ends of a connection that need different next steps."""

    UNREACHABLE = "unreachable"  # no connection, or it ended before the broker answered
    SILENT = "silent"  # no CONNACK: the server may not support this protocol version
    UNSUPPORTED = "unsupported"  # the broker does not support this protocol version
    REFUSED = "refused"  # the broker refuses: an early retry does not help
    TAKEN_OVER = "taken_over"  # by another client with the same id: an immediate reconnect would repeat it
    DROPPED = "dropped"  # an established connection ended


@dataclass(frozen=True, slots=True)
class Disconnection:
    """The end of a connection or of an attempt."""

    kind: DisconnectKind
    detail: str
    reason_code: int | None = None


_CONNECT_WORDS: Final[dict[int, tuple[DisconnectKind, str]]] = {
    128: (DisconnectKind.REFUSED, "the broker refused the connection without saying why"),
    129: (DisconnectKind.UNSUPPORTED, "the broker could not read the CONNECT"),
    130: (DisconnectKind.UNSUPPORTED, "the broker called the CONNECT a protocol error"),
    132: (DisconnectKind.UNSUPPORTED, "the broker does not speak this MQTT version"),
    133: (DisconnectKind.REFUSED, "the broker does not accept this client id"),
    134: (DisconnectKind.REFUSED, "the broker refused the user name or password"),
    135: (DisconnectKind.REFUSED, "the broker says this client is not authorized to connect"),
    136: (DisconnectKind.UNREACHABLE, "the broker is unavailable"),
    137: (DisconnectKind.UNREACHABLE, "the broker is busy"),
    138: (DisconnectKind.REFUSED, "this client is banned at the broker"),
    140: (DisconnectKind.REFUSED, "the broker does not accept this way to authenticate"),
    151: (DisconnectKind.REFUSED, "the broker's licence allows no more sessions"),  # EMQX 6.x
    156: (DisconnectKind.UNREACHABLE, "the broker says to use another server for now"),
    157: (DisconnectKind.UNREACHABLE, "the broker says the server has moved"),
    159: (DisconnectKind.UNREACHABLE, "the broker limits how fast clients may connect"),
}

_DISCONNECT_WORDS: Final[dict[int, tuple[DisconnectKind, str]]] = {
    0: (DisconnectKind.DROPPED, "the broker closed the connection"),
    130: (DisconnectKind.DROPPED, "the broker called something we sent a protocol error"),
    135: (DisconnectKind.REFUSED, "the broker says this client is no longer authorized"),
    137: (DisconnectKind.DROPPED, "the broker is busy"),
    138: (DisconnectKind.REFUSED, "this client is banned at the broker"),
    139: (DisconnectKind.DROPPED, "the broker is shutting down"),
    141: (DisconnectKind.DROPPED, "the broker received nothing from this client for too long"),
    142: (
        DisconnectKind.TAKEN_OVER,
        "another client connected with the same client id: is a second controller running?",
    ),
    147: (DisconnectKind.DROPPED, "the broker says that this client exceeded its Receive Maximum"),
    149: (DisconnectKind.DROPPED, "the broker says that a packet of this client was too large"),
    151: (DisconnectKind.DROPPED, "the broker says a quota is used up"),
    152: (DisconnectKind.DROPPED, "the broker's administrator disconnected this client; its session is gone"),
    156: (DisconnectKind.DROPPED, "the broker says to use another server for now"),
    157: (DisconnectKind.DROPPED, "the broker says the server has moved"),
}


_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_ALERT_(\w+)")  # OpenSSL's names of alerts that were received


def connack_reason(code: int, name: str) -> Disconnection:
    """Returns the meaning of a CONNACK with a failure code."""
    kind, words = _CONNECT_WORDS.get(code, (DisconnectKind.REFUSED, f"the broker refused the connection: {name}"))
    return Disconnection(kind, f"{words} (reason {code})", code)


def disconnect_reason(code: int, name: str) -> Disconnection:
    """Returns the meaning of the broker's DISCONNECT."""
    kind, words = _DISCONNECT_WORDS.get(code, (DisconnectKind.DROPPED, f"the broker disconnected us: {name}"))
    return Disconnection(kind, f"{words} (reason {code})", code)


def _describe_tls_error(error: ssl.SSLError) -> str:
    reason: str | None = getattr(error, "reason", None)  # only errors raised by OpenSSL have it
    alert = _ALERT.fullmatch(reason or "")
    if alert is None:
        return (reason or error.strerror or str(error)).replace("_", " ").lower()
    words = alert[1].replace("_", " ").lower()
    is_certificate = "certificate" in words or words == "unknown ca"
    return f"the server refused {'the certificate of this side' if is_certificate else 'the connection'}: {words}"


def describe_network_error(error: Exception) -> str:
    """Describes an error below MQTT: name lookup, socket, TLS, key files."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the server's certificate is not trusted: {getattr(error, 'verify_message', error)}"
        case ssl.SSLEOFError():
            return "TLS failed: the server closed the connection without a word"
        case ssl.SSLError():
            return f"TLS failed: {_describe_tls_error(error)}"
        case socket.gaierror():
            return "the host name could not be resolved"
        case TimeoutError():
            return "no answer in time"
        case ConnectionRefusedError():
            return "nothing listens there (connection refused)"
        case OSError() if error.filename is not None:
            return f"cannot read {error.filename}: {error.strerror}"
        case OSError():
            return error.strerror or str(error) or type(error).__name__
        case _:
            return f"{type(error).__name__}: {error}"
