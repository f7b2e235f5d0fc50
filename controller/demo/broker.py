"""The broker of a demonstration, the stand-in or a running EMQX: its addresses, and the credentials of every client."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.demo.certificates import DemoCertificateAuthority
from controller.demo.options import DemoError, ExternalBroker
from controller.demo.runner import DemoRun
from schemas.broker_address import BrokerAddress

NODES: Final = 3  # of the stand-in
_START_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class DemoBroker:
    """`certificate_for`: paths of certificate and key of a client id; `own_certificates`: each client has its own."""

    api: tuple[str, ...]
    api_key: str
    api_secret: str
    servers: tuple[BrokerAddress, ...]
    ca: Path | None = None
    user: str | None = None
    password: str | None = None
    certificate_for: Callable[[str], tuple[Path, Path]] | None = None
    own_certificates: bool = False

    def tls(self, client_id: str) -> ssl.SSLContext | None:
        """The context of a client, `None` without TLS.

        Raises:
            DemoError: a file cannot be used.
        """
        if not self.servers[0].tls:
            return None
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.certificate_for is not None:
                context.load_cert_chain(*self.certificate_for(client_id))
        except OSError as e:  # ssl.SSLError is one
            raise DemoError(f"the TLS files for MQTT cannot be used: {e}") from e
        return context


async def start_stand_in(run: DemoRun) -> DemoBroker:
    """Starts the stand-in, with a certificate for each client."""
    certificates = run.folder / "certificates"
    certificates.mkdir()
    authority = DemoCertificateAuthority(certificates)
    certificate, key = authority.server()
    arguments = ["--nodes", str(NODES), "--tls-ca", str(authority.ca), "--tls-cert", str(certificate)]
    child = await run.start("cordon-standin", "controller.standin", [*arguments, "--tls-key", str(key)])
    ready = await child.first_line(_START_SECONDS)
    run.watch(child)
    return DemoBroker(
        api=tuple(node["api"] for node in ready["nodes"]),
        api_key=ready["api_key"],
        api_secret=ready["api_secret"],
        servers=tuple(BrokerAddress.parse(f"mqtts://{node['tls']}") for node in ready["nodes"]),
        ca=authority.ca,
        certificate_for=authority.client,
        own_certificates=True,
    )


def external(broker: ExternalBroker) -> DemoBroker:
    """A running EMQX with the credentials that were given.

    Raises:
        DemoError: an address is not HOST:PORT.
    """
    scheme = "mqtt" if broker.ca is None and broker.certificate is None else "mqtts"
    certificate, key = broker.certificate, broker.certificate_key
    pair = None if certificate is None or key is None else (certificate, key)
    return DemoBroker(
        api=broker.api,
        api_key=broker.key,
        api_secret=broker.secret,
        servers=tuple(_server(scheme, text) for text in broker.mqtt),
        ca=broker.ca,
        user=broker.user,
        password=broker.password,
        certificate_for=None if pair is None else lambda _client_id: pair,
    )


def _server(scheme: str, text: str) -> BrokerAddress:
    try:
        return BrokerAddress.parse(f"{scheme}://{text}")
    except ValueError as e:
        raise DemoError(f"--mqtt: {text!r} is not HOST:PORT") from e
