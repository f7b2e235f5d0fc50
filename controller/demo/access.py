"""How everyone in a demonstration gets into the broker: addresses, authority, and what each name shows at the door."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from controller.demo.certificates import DemoCertificateAuthority
from controller.demo.options import DemoError, ExternalBroker

_TLS_PORT: Final = 8883
_PLAIN_PORT: Final = 1883

ClientCertificateLookup = Callable[[str], tuple[Path, Path]]


@dataclass(frozen=True, slots=True)
class DemoBrokerAccess:
    """`servers` are `mqtt://host:port` or `mqtts://host:port`.

    `certificate_for` gives the certificate and key of a client id; `own_certificates` says that each has its own.
    """

    servers: tuple[str, ...]
    ca: Path | None = None
    user: str | None = None
    password: str | None = None
    certificate_for: ClientCertificateLookup | None = None
    own_certificates: bool = False

    def address(self, number: int) -> tuple[str, int]:
        """Host and port of one server; the numbers go round."""
        parts = urlsplit(self.servers[number % len(self.servers)])
        return parts.hostname or "", parts.port or 0

    def tls(self, client_id: str) -> ssl.SSLContext | None:
        """What `client_id` connects with, `None` without TLS.

        Raises:
            DemoError: a file of the certificate or authority cannot be used.
        """
        if not self.servers[0].startswith("mqtts:"):
            return None
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.certificate_for is not None:
                certificate, key = self.certificate_for(client_id)
                context.load_cert_chain(certificate, key)
        except OSError as e:  # ssl.SSLError is one
            raise DemoError(f"the TLS files for MQTT cannot be used: {e}") from e
        return context


def access_by_certificates(authority: DemoCertificateAuthority, addresses: tuple[str, ...]) -> DemoBrokerAccess:
    """Everyone has a certificate of their own, as in a fleet that is run well."""
    return DemoBrokerAccess(
        servers=tuple(f"mqtts://{address}" for address in addresses),
        ca=authority.ca,
        certificate_for=authority.client,
        own_certificates=True,
    )


def access_to(broker: ExternalBroker) -> DemoBrokerAccess:
    """Into a broker that was there before, with what was given for it.

    Raises:
        DemoError: an address that is none.
    """
    is_tls = broker.ca is not None or broker.certificate is not None
    scheme, port = ("mqtts", _TLS_PORT) if is_tls else ("mqtt", _PLAIN_PORT)
    certificate, key = broker.certificate, broker.certificate_key
    pair = None if certificate is None or key is None else (certificate, key)
    return DemoBrokerAccess(
        servers=tuple(_server(scheme, text, port) for text in broker.mqtt),
        ca=broker.ca,
        user=broker.user,
        password=broker.password,
        certificate_for=None if pair is None else lambda _name: pair,
    )


def _server(scheme: str, text: str, port: int) -> str:
    try:
        parts = urlsplit(f"{scheme}://{text}")
        host, number = parts.hostname, parts.port or port
    except ValueError as e:
        raise DemoError(f"--mqtt: {text!r} is not HOST:PORT") from e
    if not host or parts.path or parts.query or parts.username is not None:
        raise DemoError(f"--mqtt: {text!r} is not HOST:PORT")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{number}"
