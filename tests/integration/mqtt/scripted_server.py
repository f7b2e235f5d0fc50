"""A server that behaves as no broker at hand can be made to: silent, refusing, rude. It speaks bytes, not a library."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CONNECT, SUBSCRIBE, PUBLISH = 0x10, 0x82, 0x30


@dataclass(slots=True)
class Peer:
    """One connection to the double."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    level: int = 0
    seen: list[tuple[int, bytes]] = field(default_factory=list)

    async def packet(self) -> tuple[int, bytes]:
        """The next packet of the client: first byte and body."""
        first = (await self.reader.readexactly(1))[0]
        size = shift = 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            size |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        body = await self.reader.readexactly(size)
        self.seen.append((first, body))
        if first == CONNECT:
            self.level = body[6]
        return first, body

    def say(self, *data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.writelines(data)

    async def accept(self, connack_properties: bytes = b"") -> None:
        """CONNACK 0 and SUBACK 1 in the client's version."""
        await self.packet()
        five = self.level == 5
        body = b"\x00\x00" + (bytes((len(connack_properties),)) + connack_properties if five else b"")
        self.say(b"\x20", bytes((len(body),)), body)
        _, subscribe = await self.packet()
        suback = subscribe[:2] + (b"\x00" if five else b"") + b"\x01"
        self.say(b"\x90", bytes((len(suback),)), suback)

    async def rest(self) -> None:
        """Read on until the client closes."""
        while True:
            await self.packet()


@dataclass(slots=True)
class Double:
    """The server: its port, and who came."""

    port: int
    peers: list[Peer] = field(default_factory=list)


@asynccontextmanager
async def double(behave: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[Double]:
    """Serve each connection by `behave`, then close it."""
    here = Double(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        here.peers.append(peer)
        try:
            await behave(peer)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client left
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for peer in here.peers:
            peer.writer.transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0.02)  # the handlers see the end
