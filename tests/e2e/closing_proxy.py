"""A proxy in front of the broker's HTTP API that stops right after a certain request went through."""

import asyncio
import contextlib
from typing import Final, Self
from urllib.parse import urlsplit

_CHUNK: Final = 64 * 1024


class ClosingProxy:
    """Passes everything; after `close_after(request)`, the first request with these bytes is the last."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._last_request = b""
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname()[:2])
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        if self._handlers:
            await asyncio.wait(self._handlers)
        await self._server.wait_closed()

    @property
    def is_closed(self) -> bool:
        """Whether the last request went through."""
        return not self._is_open.is_set()

    def close_after(self, request: bytes) -> None:
        """Passes the next request with these bytes, and nothing in either direction after it."""
        self._last_request = request

    def open(self) -> None:
        """Passes new connections again."""
        self._last_request = b""
        self._is_open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._is_open.wait()
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            try:
                async with asyncio.TaskGroup() as group:
                    back = group.create_task(self._back(up_reader, writer))
                    await self._forth(reader, up_writer)
                    back.cancel()
            finally:
                up_writer.transport.abort()
        writer.transport.abort()
        self._handlers.discard(task)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_last = False
        while data := await reader.read(_CHUNK):
            if self.is_closed and not is_last:
                continue
            if self._last_request and self._last_request in data:
                self._is_open.clear()
                is_last = True  # its body may come later than its head
            writer.write(data)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if not self.is_closed:
                writer.write(data)
