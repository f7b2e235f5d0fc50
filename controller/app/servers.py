"""The HTTP servers: the API, downloads of updates, revocation lists."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import uvicorn

from controller.api.context import Services
from controller.api.downloads import create_downloads
from controller.api.metrics import ContainmentDurations
from controller.api.server import create_api, create_list_server
from controller.ports.errors import SettingsError
from controller.service.settings.settings import Settings

STOP_TIMEOUT: Final = 10.0  # seconds for what is under way
_LIST_CONNECTIONS: Final = 64  # of brokers and devices that fetch revocation lists at once


class EmbeddedUvicornServer(uvicorn.Server):
    """A uvicorn server that leaves signal handling to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(settings: Settings) -> socket.socket:
    """The API's listening socket.

    Raises:
        SettingsError: the port is not free.
    """
    return _bind(settings.api.host, settings.api.port, f"api.listen: cannot listen on {settings.api.listen}")


def _bind(host: str, port: int, trouble: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as e:
        raise SettingsError(f"{trouble}: {e.strerror}") from e


def api_server(services: Services, durations: ContainmentDurations) -> EmbeddedUvicornServer:
    certificate, key = services.settings.api.certificate, services.settings.api.key
    config = uvicorn.Config(
        create_api(services, durations),
        log_config=None,
        lifespan="off",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(STOP_TIMEOUT),
        ssl_certfile=None if certificate is None else str(certificate),
        ssl_keyfile=None if key is None else str(key),
    )
    return EmbeddedUvicornServer(config)


class UpdateServer:
    """Serves the repository of updates to devices, on a separate port."""

    def __init__(self, settings: Settings) -> None:
        updates = settings.updates
        assert updates.folder is not None
        served = updates.folder / "repository"
        config = uvicorn.Config(
            create_downloads(served, mib_per_second=updates.mib_per_second, most=updates.max_downloads),
            log_config=None,
            lifespan="off",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # a device resumes its download
            ssl_certfile=None if updates.certificate is None else str(updates.certificate),
            ssl_keyfile=None if updates.key is None else str(updates.key),
            ssl_ca_certs=None if updates.client_ca is None else str(updates.client_ca),
            ssl_cert_reqs=ssl.CERT_NONE if updates.client_ca is None else ssl.CERT_REQUIRED,
        )
        self._server = EmbeddedUvicornServer(config)
        self._listener = _bind(updates.host, updates.port, f"updates.listen: cannot listen on {updates.listen}")
        host, port = self._listener.getsockname()[:2]
        self.url = f"{'http' if updates.certificate is None else 'https'}://{host}:{port}"

    async def run(self) -> None:
        """Runs until cancelled."""
        serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._listener]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self._server.should_exit = True
            await serving
            raise


class CrlServer:
    """Serves revocation lists over plain HTTP and nothing else: they are signed, and EMQX fetches over HTTP only."""

    def __init__(self, services: Services, listen_on: str) -> None:
        """Takes the port.

        Raises:
            SettingsError: the port is not free.
        """
        host, _, port = listen_on.rpartition(":")
        self._socket = _bind(host.strip("[]"), int(port), f"authority.crl_listen: cannot listen on {listen_on}")
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
        """Runs until cancelled."""
        try:
            await self._server.serve(sockets=[self._socket])
        except asyncio.CancelledError:
            await self._server.shutdown(sockets=[self._socket])
            raise
