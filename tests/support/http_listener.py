"""One HTTP listener of the controller over a small application, and raw clients with addresses of their own."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from controller.adapters.http_server.admission import ConnectionLimits
from controller.adapters.http_server.server import BoundedServer
from tests.support.waiting import eventually

LARGE: Final = 4 * 1024 * 1024  # bytes of `/large`: more than all buffers on the way hold
WAIT_SECONDS: Final = 20.0
Loop = Callable[[], asyncio.AbstractEventLoop]


async def _small(request: Request) -> Response:
    return PlainTextResponse(f"{len(await request.body())} bytes from {request.client.host if request.client else ''}")


async def _large(_request: Request) -> Response:
    return Response(b"x" * LARGE)


async def _unread(_request: Request) -> Response:
    return PlainTextResponse("refused", 413)  # without reading the body


def small_app() -> Starlette:
    """`/` tells the size of the body, `/large` sends `LARGE` bytes, `/unread` does not read the body."""
    routes = [
        Route("/", _small, methods=["GET", "POST"]),
        Route("/large", _large),
        Route("/unread", _unread, methods=["POST"]),
    ]
    return Starlette(routes=routes)


class RunningListener:
    """A server and its port."""

    def __init__(self, server: BoundedServer, port: int) -> None:
        self.server = server
        self.port = port

    async def connect(self, address: str = "127.0.0.1", sent: bytes = b"", *, receive_buffer: int = 0) -> socket.socket:
        """A connected plain socket of `address`, a loopback address, that has sent some bytes."""
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.setblocking(False)
        client.bind((address, 0))
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", self.port))
        await loop.sock_sendall(client, sent)
        return client

    async def fetch(self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> bytes:
        """The whole answer to one honest request; empty if the connection was closed."""
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, local_addr=(address, 0), ssl=tls, server_hostname="localhost" if tls else None
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            try:
                return await reader.read()
            finally:
                writer.close()
        except OSError:
            return b""

    def end_overdue(self, seconds: float) -> None:
        """Lets the server look at its connections as if so many seconds had passed."""
        self.server.end_overdue(asyncio.get_running_loop().time() + seconds)


async def is_closed(client: socket.socket) -> bool:
    """Waits until the server has closed the connection, whatever it sent before."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_SECONDS):
        try:
            while await loop.sock_recv(client, 65536):
                pass
        except ConnectionResetError:
            pass
    return True


@contextlib.asynccontextmanager
async def running_listener(limits: ConnectionLimits, app: Any = None, **options: Any) -> AsyncIterator[RunningListener]:
    """Serves `app`; `options` are uvicorn's."""
    config = uvicorn.Config(
        app or small_app(), log_config=None, lifespan="off", ws="none", proxy_headers=False, access_log=False,
        timeout_graceful_shutdown=1, **options,
    )  # fmt: skip
    server = BoundedServer(config, limits, "test")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            running = RunningListener(server, listener.getsockname()[1])
            await eventually(lambda: server.started, "the listener serves")
            try:
                yield running
            finally:
                server.should_exit = True


def run_in(loop: Loop, scenario: Callable[[], Awaitable[None]]) -> None:
    """Runs a scenario in a fresh loop of this kind: the controller has uvloop's, tests mostly asyncio's."""

    async def whole() -> None:
        await scenario()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(whole())
