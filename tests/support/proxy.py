"""A TCP proxy in the test's event loop: records and holds back what clients send, and resets connections.

`async with Proxy(host, port) as proxy:` listens at `proxy.port`. What the server sends is never held back.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from types import TracebackType
from typing import Final, Self

_CHUNK: Final = 64 * 1024  # bytes


class Proxy:
    """Connections to one server; `from_client`: the bytes of each client, in order of their connections."""

    host: Final = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._reading = asyncio.Event()
        self._reading.set()
        self._server: asyncio.Server | None = None
        self.from_client: list[bytearray] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.release()
        self.cut()
        await self._server.wait_closed()
        while self._open:
            await asyncio.sleep(0.005)

    def cut(self) -> None:
        """Resets every connection."""
        for writer in self._open:
            writer.transport.abort()

    def hold(self) -> None:
        """Records what clients send without passing it on, until `release`."""
        self._flowing.clear()

    def freeze(self) -> None:
        """Reads nothing from clients until `release`, as a server that hangs."""
        self._reading.clear()

    def release(self) -> None:
        """Ends `hold` and `freeze`."""
        self._flowing.set()
        self._reading.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError):
                up_reader, up_writer = await asyncio.open_connection(*self._target)
                self._open.add(up_writer)
                try:
                    await self._pipe(reader, writer, up_reader, up_writer)
                finally:
                    self._open.discard(up_writer)
                    up_writer.transport.abort()
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _pipe(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        record = bytearray()
        self.from_client.append(record)

        held: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen() -> None:
            while data := await reader.read(_CHUNK):
                record.extend(data)
                held.put_nowait(data)
                await self._reading.wait()
            held.put_nowait(b"")

        async def upward() -> None:
            while data := await held.get():
                await self._flowing.wait()
                up_writer.write(data)
                await up_writer.drain()

        async def downward() -> None:
            while data := await up_reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()

        # When one direction ends, the connection does.
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._quietly(listen()))
            ways = [group.create_task(self._quietly(upward())), group.create_task(self._quietly(downward()))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in (listening, *ways):
                way.cancel()

    @staticmethod
    async def _quietly(way: Coroutine[None, None, None]) -> None:
        with contextlib.suppress(OSError):
            await way
