"""The API on a real socket: `with ApiServer(path) as server: server.url`."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import uvicorn

from controller.ports.inspection import DashboardLogin
from tests.support.api import Api, api

T = TypeVar("T")
_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 10.0


class ApiServer:
    """One API over a real store, served by uvicorn in a thread; `devices` have reported once.

    With `certificate` and `key` it uses TLS; `options` are those of `api`.
    """

    def __init__(
        self,
        path: Path,
        devices: dict[str, tuple[int, ...]],
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        **options: Any,
    ) -> None:
        self._path = path
        self._devices = devices
        self.options = options
        self._tls = {} if certificate is None else {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
        self._socket = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._socket.getsockname()[1]}"
        self.answers: dict[str, Any] = {}  # of the broker, when it is inspected
        self.logins: list[DashboardLogin | None] = []
        self._made: tuple[asyncio.AbstractEventLoop, Api] | None = None
        self._ready = threading.Event()
        self._server: uvicorn.Server | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="api-server")

    @property
    def local(self) -> str:
        """The address by the name of this machine, for which browsers keep cookies without TLS."""
        return self.url.replace("127.0.0.1", "localhost")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_START_SECONDS), "the API did not start"
        if self._failure is not None:
            self._thread.join()
            self._socket.close()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._socket.close()
        assert not self._thread.is_alive(), "the API did not stop"

    def call(self, work: Callable[[Api], Coroutine[Any, Any, T]]) -> T:
        """Does some work with the API in its own thread."""
        assert self._made is not None
        loop, made = self._made
        return asyncio.run_coroutine_threadsafe(work(made), loop).result(_START_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as e:  # noqa: BLE001 - handed to the thread that started this one
            self._failure = e
            self._ready.set()

    async def _serve(self) -> None:
        async with api(self._path, **self.options) as one, asyncio.TaskGroup() as group:
            self._made = asyncio.get_running_loop(), one
            one.harness.inspector.answers, one.harness.inspector.logins = self.answers, self.logins
            for device_id, ports in self._devices.items():
                await one.report(device_id, ports=ports)
            await one.harness.drain()
            working = group.create_task(one.harness.outbox.run())
            config = uvicorn.Config(one.app, log_config=None, lifespan="off", **self._tls)  # type: ignore[arg-type]  # paths
            self._server = uvicorn.Server(config)
            self._ready.set()
            await self._server.serve(sockets=[self._socket])
            working.cancel()
