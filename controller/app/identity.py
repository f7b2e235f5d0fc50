"""Makes the certificate authority's parts from the settings; like `assembly.py`, it names implementations."""

import asyncio
import socket
from typing import Final, Protocol

import uvicorn

from controller.adapters.logs import logger_for
from controller.adapters.sqlite.certificates import SqliteRegistry
from controller.adapters.sqlite.store import SqliteStore
from controller.adapters.x509.authority import X509Authority
from controller.adapters.x509.folder import load
from controller.adapters.x509.foreign import X509ForeignLists
from controller.api.context import Services
from controller.api.server import create_list_server
from controller.app.build import Server
from controller.ports.errors import SettingsError
from controller.ports.messages import Messages
from controller.service.fleet_state import Keeper
from controller.service.identity.certificates import Certificates
from controller.service.identity.clones import CloneWatch
from controller.service.identity.enrolment import Enrolment
from controller.service.identity.external_crls import FollowedLists
from controller.service.identity.renewal import Renewals
from controller.service.identity.revocation import Revocation
from controller.service.identity.services import Identity
from controller.service.ingest.ingest import Ingest
from controller.service.settings.settings import AuthoritySettings, Settings

_LIST_CONNECTIONS: Final = 64  # of brokers and devices that fetch revocation lists at once


class Runs(Protocol):
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
    settings: Settings, store: SqliteStore, keeper: Keeper, ingest: Ingest, messages: Messages, keys: tuple[str, ...]
) -> Identity | None:
    """What serves devices' certificates; `None` where no authority is configured.

    Raises:
        ControllerError: it is configured and cannot be used.
    """
    wanted = settings.authority
    if wanted.folder is None:
        return None
    authority, registry, log = open_authority(wanted), SqliteRegistry(store), logger_for("identity")
    await registry.add(authority.own(keeper.clock.now()))
    certificates = Certificates(authority, registry, store, keeper.clock, wanted, log)
    await certificates.publish()
    servers = wanted.device_servers or settings.mqtt.servers
    enrolment = Enrolment(certificates, keeper, servers, lambda: keys, frozenset({settings.mqtt.client_id}))
    renewals = Renewals(certificates, keeper, messages, log)
    ingest.on_renewal = renewals.ask
    return Identity(certificates, enrolment, Revocation(certificates, keeper, log), renewals)


class ListListener:
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
        self._server = Server(
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


def presence_loops(services: Services) -> tuple[tuple[str, Runs], ...]:
    """What looks for two devices that pass for one, where the broker tells who comes and goes."""
    if not services.settings.identity.watch_presence:
        return ()
    watch = CloneWatch(services.keeper, services.broker, logger_for("identity"))
    services.ingest.on_presence = watch.take
    return (("clones", watch),)


def identity_loops(services: Services) -> tuple[tuple[str, Runs], ...]:
    """What runs for certificates, by name; nothing where no authority is configured."""
    identity, listen = services.identity, services.settings.authority.crl_listen
    if identity is None:
        return ()
    if services.signing is not None:
        identity.certificates.on_changed = services.signing.keyring.changed
    wanted = services.settings.authority
    followed: tuple[tuple[str, Runs], ...] = ()
    if wanted.watch and wanted.watch_issuers is not None:
        lists = FollowedLists(
            X509ForeignLists(wanted.watch_issuers),
            wanted.watch,
            wanted.watch_every,
            identity.certificates.registry,
            identity.revocation,
            services.store,
            services.keeper.clock,
            logger_for("identity"),
        )
        followed = (("followed lists", lists),)
    loops: tuple[tuple[str, Runs], ...] = (
        ("certificates", identity.certificates),
        ("revocation", identity.revocation),
        ("renewals", identity.renewals),
        *followed,
    )
    return loops if listen is None else (*loops, ("revocation lists", ListListener(services, listen)))
