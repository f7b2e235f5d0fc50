"""A receiver of webhooks on a real socket that answers, or fails to, as a test says."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.waiting import eventually

OK: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


Answer = Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class HttpReceiver:
    """`got`: every whole request. `answer` writes the response; without it 204."""

    port: int = 0
    scheme: str = "http"
    got: list[ReceivedRequest] = field(default_factory=list)
    answer: Answer | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    async def until(self, count: int) -> list[ReceivedRequest]:
        """Waits for so many requests."""
        await eventually(lambda: len(self.got) >= count, lambda: f"{count} requests, there are {len(self.got)}")
        return self.got

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in head[1:] if one)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = ReceivedRequest(head[0].split(" ")[1], headers, body)
        self.got.append(request)
        if self.answer is not None:
            await self.answer(request, writer)
        else:
            writer.write(OK)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def tcp_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Runs a server on a free port, which it yields; at the end no connection is left."""
    tasks: set[asyncio.Task[Any]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side left, or the test is over
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)  # in which the transport closes its socket

    server = await asyncio.start_server(tracked, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def http_receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpReceiver]:
    """Runs a receiver on a free port."""
    receiver = HttpReceiver(scheme="http" if tls is None else "https")
    async with tcp_server(receiver.serve, tls) as receiver.port:
        yield receiver


def status(line: str, *headers: str) -> Answer:
    """Answers with a status line and headers, without a body."""

    async def answer(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([f"HTTP/1.1 {line}", *headers, "Content-Length: 0", "", ""]).encode())
        await writer.drain()

    return answer


@contextlib.contextmanager
def tls_listener(context: ssl.SSLContext) -> Iterator[tuple[int, list[bytes]]]:
    """A TLS server of another authority: its port, and what was sent to it through completed handshakes."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with (
                    connection,
                    contextlib.suppress(OSError),
                    context.wrap_socket(connection, server_side=True) as safe,
                ):
                    heard.append(safe.recv(1024))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
