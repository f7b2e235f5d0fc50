"""A TLS socket that remembers why it failed: paho reports only that the connection is gone."""

import re
import ssl
from typing import Any, Final

_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_ALERT_(\w+)")  # OpenSSL's names of alerts that were received
_READ_BYTES: Final = 1024
_AGAIN: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class RememberingTlsSocket(ssl.SSLSocket):
    """For `ssl.SSLContext.sslsocket_class`; `failure` is what ended reading or writing."""

    failure: OSError | None = None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except _AGAIN:
            raise
        except OSError as e:
            self.failure = self.failure or e
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except _AGAIN:
            raise
        except OSError as e:
            self.failure = self.failure or self._alert() or e
            raise

    def _alert(self) -> OSError | None:
        """The alert with which the server ended TLS, which says more than a failed write."""
        try:
            super().recv(_READ_BYTES)
        except (*_AGAIN, ssl.SSLEOFError):
            return None
        except ssl.SSLError as e:
            return e
        except OSError:
            return None
        return None


def failure_of(sock: object) -> str:
    """Why a TLS socket failed, in words; empty if it did not, or is none."""
    error = sock.failure if isinstance(sock, RememberingTlsSocket) else None
    if error is None:
        return ""
    alert = _ALERT.fullmatch(getattr(error, "reason", None) or "")
    if alert is not None:
        return f"the broker ended TLS: {alert[1].replace('_', ' ').lower()}"
    return f"TLS failed: {error.strerror or error}"
