"""Makes the certificate authority's parts from the settings; like `assembly.py`, it names implementations."""

import asyncio
import socket
from typing import Final, Protocol

import uvicorn

from controller.adapters.logs import logger_for
from controller.adapters.sqlite.certificates import SqliteCertificateRegistry
from controller.adapters.sqlite.store import SqliteStore
from controller.adapters.x509.authority import X509Authority
from controller.adapters.x509.folder import load
from controller.adapters.x509.foreign import X509ExternalCrls
from controller.api.context import Services
from controller.api.server import create_list_server
from controller.app.build import EmbeddedUvicornServer
from controller.ports.errors import SettingsError
from controller.ports.messages import Messages
from controller.service.fleet_state import FleetState
from controller.service.identity.certificates import CertificateService
from controller.service.identity.clones import CloneMonitor
from controller.service.identity.enrolment import EnrolmentService
from controller.service.identity.external_crls import ExternalCrlRefresher
from controller.service.identity.renewal import RenewalService
from controller.service.identity.revocation import RevocationService
from controller.service.identity.services import IdentityServices
from controller.service.ingest.ingest import Ingest
from controller.service.settings.settings import AuthoritySettings, Settings

_LIST_CONNECTIONS: Final = 64  # of brokers and devices that fetch revocation lists at once


class BackgroundLoop(Protocol):
    """A loop of its own."""

    async def run(self) -> None:
        """Until cancelled."""
        ...


def open_authority(settings: AuthoritySettings) -> X509Authority:
    """The authority in the configured folder.

    Raises:
        ControllerError: there is none, or it cannot be used.
    """
    if settings.folder is None:
        raise SettingsError("authority.folder is not set: make an authority with `cordon ca init`")
    return X509Authority(load(settings.folder, settings.passphrase_file), settings.crl_url or "")


async def identity_parts(
    settings: Settings,
    store: SqliteStore,
    keeper: FleetState,
    ingest: Ingest,
    messages: Messages,
    keys: tuple[str, ...],
) -> IdentityServices | None:
    """What serves devices' certificates; `None` where no authority is configured.

    Raises:
        ControllerError: it is configured and cannot be used.
    """
    wanted = settings.authority
    if wanted.folder is None:
        return None
    authority, registry, log = open_authority(wanted), SqliteCertificateRegistry(store), logger_for("identity")
    await registry.add(authority.own(keeper.clock.now()))
    certificates = CertificateService(authority, registry, store, keeper.clock, wanted, log)
    await certificates.publish()
    servers = wanted.device_servers or settings.mqtt.servers
    enrolment = EnrolmentService(certificates, keeper, servers, lambda: keys, frozenset({settings.mqtt.client_id}))
    renewals = RenewalService(certificates, keeper, messages, log)
    ingest.on_renewal = renewals.ask
    return IdentityServices(certificates, enrolment, RevocationService(certificates, keeper, log), renewals)


class CrlServer:
    """Hands out revocation lists over plain HTTP and nothing else; they are signed, and EMQX fetches by http only."""

    def __init__(self, services: Services, listen: str) -> None:
        """Take the port.

        Raises:
            SettingsError: it is not to be had.
        """
        host, _, port = listen.rpartition(":")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host.strip("[]"), int(port)), family=family)
        except OSError as e:
            raise SettingsError(f"authority.crl_listen: cannot listen on {listen}: {e.strerror}") from e
        self._server = EmbeddedUvicornServer(
            uvicorn.Config(
                create_list_server(services),
                log_config=None,
                lifespan="off",
                access_log=False,
                server_header=False,
                limit_concurrency=_LIST_CONNECTIONS,
            )
        )

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await self._server.serve(sockets=[self._socket])
        except asyncio.CancelledError:
            await self._server.shutdown(sockets=[self._socket])
            raise


def presence_loops(services: Services) -> tuple[tuple[str, BackgroundLoop], ...]:
    """What looks for two devices that pass for one, where the broker tells who comes and goes."""
    if not services.settings.identity.watch_presence:
        return ()
    watch = CloneMonitor(services.keeper, services.broker, logger_for("identity"))
    services.ingest.on_presence = watch.take
    return (("clones", watch),)


def identity_loops(services: Services) -> tuple[tuple[str, BackgroundLoop], ...]:
    """What runs for certificates, by name; nothing where no authority is configured."""
    identity, listen = services.identity, services.settings.authority.crl_listen
    if identity is None:
        return ()
    if services.signing is not None:
        identity.certificates.on_changed = services.signing.keyring.changed
    wanted = services.settings.authority
    followed: tuple[tuple[str, BackgroundLoop], ...] = ()
    if wanted.watch and wanted.watch_issuers is not None:
        lists = ExternalCrlRefresher(
            X509ExternalCrls(wanted.watch_issuers),
            wanted.watch,
            wanted.watch_every,
            identity.certificates.registry,
            identity.revocation,
            services.store,
            services.keeper.clock,
            logger_for("identity"),
        )
        followed = (("followed lists", lists),)
    loops: tuple[tuple[str, BackgroundLoop], ...] = (
        ("certificates", identity.certificates),
        ("revocation", identity.revocation),
        ("renewals", identity.renewals),
        *followed,
    )
    return loops if listen is None else (*loops, ("revocation lists", CrlServer(services, listen)))
