"""Serves the update repository over HTTP: ranges, content hashes, bounded traffic.

It needs no token: everything in it is signed, and devices verify the signatures. Any web server can serve the folder.
"""

import asyncio
import base64
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.domain.client_address import counted_as

_MIB: Final = 1024 * 1024
_HASHED: Final = re.compile(r"^([0-9a-f]{64})\.")
_HEAD_START: Final = 64 * 1024  # bytes
_VERSIONED: Final = re.compile(r"^\d+\.[a-z]+\.json$")


class BandwidthLimiter:
    """Shares a bandwidth in bytes per second among all downloads; 0: no limit."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free = 0.0

    async def take(self, count: int) -> None:
        """Waits until so many bytes may be sent."""
        if self._rate <= 0 or count == 0:
            return
        now = asyncio.get_running_loop().time()
        start = max(now, self._free)
        self._free = start + count / self._rate
        if start > now:
            await asyncio.sleep(start - now)


@dataclass(eq=False, slots=True)
class _Download:
    """`end` closes its connection; None where the server cannot."""

    address: str
    began: float
    end: Callable[[], None] | None
    taken: int = 0  # bytes

    def rate(self, now: float) -> float:
        """Bytes per second; a download that began just now has had no chance to be fast, and counts as such."""
        return (self.taken + _HEAD_START) / (now - self.began + 1.0)


class DownloadThrottle:
    """Limits number and bandwidth of downloads, in all and per address, and ends them with their connection.

    An IPv6 /64 counts as one address. Where all places are taken, the address with most gives one up, its slowest, to
    an address that has at least two fewer: a device resumes its download.
    """

    def __init__(self, app: ASGIApp, *, bandwidth: BandwidthLimiter, most: int, most_per_address: int) -> None:
        self._app = app
        self._bandwidth = bandwidth
        self._most = most
        self._most_per_address = most_per_address
        self._active: list[_Download] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the request, or responds 503 with Retry-After."""
        address = counted_as((scope.get("client") or ("",))[0])
        if scope["type"] != "http" or not self._has_place(address):
            busy = PlainTextResponse("too many downloads\n", 503, {"Retry-After": "30"})
            await busy(scope, receive, send)
            return
        end = scope.get("extensions", {}).get("cordon.abort")
        download = _Download(address, asyncio.get_running_loop().time(), end)
        self._active.append(download)

        async def slowly(message: Message) -> None:
            if message["type"] == "http.response.body":
                size = len(message.get("body", b""))
                await self._bandwidth.take(size)
                download.taken += size
            await send(message)

        try:
            await _while_connected(self._app, scope, receive, slowly)
        finally:
            if download in self._active:
                self._active.remove(download)

    def _has_place(self, address: str) -> bool:
        """Whether the address may begin a download, if need be in the place of another's."""
        counts = Counter(each.address for each in self._active)
        if counts[address] >= self._most_per_address:
            return False
        if len(self._active) < self._most:
            return True
        now = asyncio.get_running_loop().time()
        ending = [each for each in self._active if each.end is not None and counts[each.address] >= counts[address] + 2]
        if not ending:
            return False
        slowest = min(ending, key=lambda each: (-counts[each.address], each.rate(now)))
        self._active.remove(slowest)
        if slowest.end is not None:
            slowest.end()
        return True


async def _while_connected(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves until the client is gone: the rest of a file is not read for nobody. Such requests have no body."""

    async def serve() -> None:
        await app(scope, receive, send)

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with asyncio.TaskGroup() as group:
        served, gone = group.create_task(serve()), group.create_task(disconnected())
        served.add_done_callback(lambda _: gone.cancel())
        gone.add_done_callback(lambda _: served.cancel())


class _Files(StaticFiles):
    """Files whose entity tag is the hash of their content, so that a download resumes only with the same content."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        headers = headers_of(Path(full_path).name)
        response = FileResponse(full_path, status_code=status_code, headers=headers, stat_result=stat_result)
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response


def headers_of(name: str) -> dict[str, str]:
    """Returns the caching headers of a file; a file that is named after its content never changes."""
    hashed = _HASHED.match(name)
    if hashed is not None:
        digest = base64.b64encode(bytes.fromhex(hashed[1])).decode()
        return {
            "etag": f'"{hashed[1]}"',
            "repr-digest": f"sha-256=:{digest}:",
            "cache-control": "public, max-age=31536000, immutable",
        }
    if _VERSIONED.match(name):
        return {"cache-control": "public, max-age=86400"}
    return {"cache-control": "no-cache"}


def create_downloads(
    served: str | os.PathLike[str], *, mib_per_second: float, most: int, most_per_address: int
) -> ASGIApp:
    """Returns an application that serves `/metadata/` and `/targets/` of the folder `repository/`."""
    routes = [
        Mount(f"/{part}", _Files(directory=Path(served) / part, check_dir=False)) for part in ("metadata", "targets")
    ]
    app = Starlette(routes=routes)
    bandwidth = BandwidthLimiter(mib_per_second * _MIB)
    return DownloadThrottle(app, bandwidth=bandwidth, most=most, most_per_address=most_per_address)
