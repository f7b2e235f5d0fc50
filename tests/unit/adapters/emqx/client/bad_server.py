"""A real HTTP server that misbehaves: it sends given bytes, late, in pieces, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

HEADER_BYTES: Final = 64 * 1024
HANG: Final = b"HANG"
CLOSE: Final = b""


def response(status: int, body: bytes, kind: str = "application/json", extra: str = "") -> bytes:
    """A whole HTTP/1.1 answer."""
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


@dataclass
class BadServer:
    """One listening socket; `answer` maps `GET /path` to raw bytes, `HANG` or `CLOSE`."""

    answer: Callable[[str], bytes]
    base: str = ""
    seen: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    drip_seconds: float = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handles one connection, one request at a time."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((int(x.split(":")[1]) for x in head.lower().split("\r\n") if "content-length" in x), 0)
                await reader.readexactly(length)
                line = " ".join(head.split(" ", 2)[:2])
                self.seen.append(line)
                self.headers.append(head)
                raw = self.answer(line)
                if raw == HANG:
                    await reader.read()
                    return
                await self._send(writer, raw)
                if b"content-length" not in raw or raw.endswith(b"CUT"):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, raw: bytes) -> None:
        if not self.drip_seconds:
            writer.write(raw)
            await writer.drain()
            return
        for byte in raw:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(self.drip_seconds)


@asynccontextmanager
async def bad_server(answer: Callable[[str], bytes], *, drip_seconds: float = 0.0) -> AsyncIterator[BadServer]:
    """Runs a bad server on a free port."""
    bad = BadServer(answer, drip_seconds=drip_seconds)
    server = await asyncio.start_server(bad.serve, "127.0.0.1", 0, limit=HEADER_BYTES)
    bad.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield bad
    finally:
        server.close()
