"""The HTTP listeners: the API with enrolment, downloads of updates, revocation lists."""

import asyncio
import resource
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from controller.adapters.emqx.client.http import AT_ONCE
from controller.adapters.http_peers import AT_ONCE as PEERS_AT_ONCE
from controller.adapters.http_server.admission import MIN_CONNECTIONS, ConnectionLimits, share_descriptors
from controller.adapters.http_server.server import BoundedServer
from controller.api.context import Services
from controller.api.downloads import create_downloads
from controller.api.forwarding import PeerAccess, PeerOrigin
from controller.api.metrics import ContainmentDurations
from controller.api.middleware import ForwardedHeaders
from controller.api.request_share import RequestShare
from controller.api.server import create_api, create_list_server
from controller.console.routes import page_routes
from controller.ports.errors import SettingsError
from controller.ports.log import Log
from controller.service.settings.base import host_of, port_of, shown_address

STOP_TIMEOUT: Final = 10.0  # seconds for what is under way
CRL_CONNECTIONS: Final = 128  # of brokers and devices that fetch revocation lists
CRL_CONNECTIONS_PER_ADDRESS: Final = 16
# Descriptors for MQTT (one for each attempt to connect), the store's files, log, loop and what a request opens;
# a full listener never takes them, so that a lost MQTT session always comes back.
RESERVED_DESCRIPTORS: Final = 192


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One listener: `key` names its address in the configuration; `uvicorn` holds further options."""

    name: str
    key: str
    address: str
    app: ASGIApp
    limits: ConnectionLimits
    stop_seconds: int
    uvicorn: dict[str, Any]


class HttpListener:
    """Serves one application on one address, within the limits of its connections."""

    def __init__(self, settings: ListenerSettings) -> None:
        """Takes the port.

        Raises:
            SettingsError: it is not free.
        """
        self.name = settings.name
        self._socket = _bind(settings.address, settings.key)
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if settings.uvicorn.get("ssl_certfile") else "http"
        self.url = f"{scheme}://{shown_address(host, port)}"
        config = uvicorn.Config(
            settings.app,
            log_config=None,
            lifespan="off",
            ws="none",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # `ForwardedHeaders` reads them, from configured proxies only
            timeout_graceful_shutdown=settings.stop_seconds,
            **settings.uvicorn,
        )
        self._server = BoundedServer(config, settings.limits, settings.name)

    @property
    def config(self) -> uvicorn.Config:
        return self._server.config

    async def run(self) -> None:
        """Serves until cancelled or closed; requests under way have the listener's `stop_seconds`."""
        serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._socket]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self.close()
            await serving
            raise

    def close(self) -> None:
        """Stops accepting; `run` returns when what is under way is done."""
        self._server.should_exit = True


def _bind(address: str, key: str) -> socket.socket:
    host = host_of(address)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port_of(address)), family=family)
    except OSError as e:
        raise SettingsError(f"{key}: cannot listen on {address}: {e.strerror}") from e


def http_listeners(
    services: Services, durations: ContainmentDurations, log: Log, peers: PeerAccess | None = None
) -> tuple[HttpListener, ...]:
    """The configured listeners, the API's first; together they leave `RESERVED_DESCRIPTORS` to everything else.

    `peers`: other controllers of the store, if there may be any.

    Raises:
        SettingsError: a port is not free, or the process may open too few files.
    """
    wanted = list(_wanted(services, durations, peers))
    settings = services.settings
    needed = RESERVED_DESCRIPTORS + AT_ONCE * len(settings.emqx.api) + (0 if peers is None else PEERS_AT_ONCE)
    if settings.updates.listen is not None:
        needed += settings.updates.max_downloads  # the file of each download
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    available = sum(each.limits.total for each in wanted) if limit == resource.RLIM_INFINITY else limit - needed
    try:
        shares = share_descriptors([each.limits for each in wanted], available)
    except ValueError as e:
        least = needed + MIN_CONNECTIONS * len(wanted)
        raise SettingsError(f"this process may open {limit} files, and needs {least}: raise `ulimit -n`") from e
    for each, share in zip(wanted, shares, strict=True):
        if share != each.limits:
            fields = {"listener": each.name, "connections": share.total, "configured": each.limits.total}
            log("fewer connections than configured: the limit of open files is low", {**fields, "open_files": limit})
    return tuple(HttpListener(replace(each, limits=share)) for each, share in zip(wanted, shares, strict=True))


def _wanted(
    services: Services, durations: ContainmentDurations, peers: PeerAccess | None
) -> Iterator[ListenerSettings]:
    settings = services.settings
    api, updates, proxies = settings.api, settings.updates, settings.api.trusted_proxies
    yield ListenerSettings(
        "api",
        "api.listen",
        api.listen,
        ForwardedHeaders(_api(services, durations, peers), proxies),
        ConnectionLimits(api.max_connections, api.max_connections_per_address, proxies),
        int(STOP_TIMEOUT),
        _tls(api.certificate, api.key),
    )
    if updates.folder is not None and updates.listen is not None:
        served = create_downloads(
            updates.folder / "repository",
            mib_per_second=updates.mib_per_second,
            most=updates.max_downloads,
            most_per_address=updates.max_downloads_per_address,
        )
        yield ListenerSettings(
            "update downloads",
            "updates.listen",
            updates.listen,
            ForwardedHeaders(RequestShare(served), proxies),
            # Twice as many connections as downloads: those beyond are told to come again.
            ConnectionLimits(2 * updates.max_downloads, 2 * updates.max_downloads_per_address, proxies),
            1,  # a device resumes its download
            {
                **_tls(updates.certificate, updates.key),
                "ssl_ca_certs": None if updates.client_ca is None else str(updates.client_ca),
                "ssl_cert_reqs": ssl.CERT_NONE if updates.client_ca is None else ssl.CERT_REQUIRED,
            },
        )
    if services.identity is not None and settings.authority.crl_listen is not None:
        # Plain HTTP: the lists are signed, and EMQX fetches over HTTP only.
        yield ListenerSettings(
            "revocation lists",
            "authority.crl_listen",
            settings.authority.crl_listen,
            RequestShare(create_list_server(services)),
            ConnectionLimits(CRL_CONNECTIONS, CRL_CONNECTIONS_PER_ADDRESS, proxies),
            1,
            {},
        )


def _api(services: Services, durations: ContainmentDurations, peers: PeerAccess | None) -> ASGIApp:
    shared = RequestShare(create_api(services, durations, page_routes(), peers))
    return shared if peers is None else PeerOrigin(shared, peers)


def _tls(certificate: Path | None, key: Path | None) -> dict[str, Any]:
    return {
        "ssl_certfile": None if certificate is None else str(certificate),
        "ssl_keyfile": None if key is None else str(key),
    }
