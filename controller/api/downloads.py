"""What devices fetch updates from: the repository's folder over HTTP, with ranges, content hashes, bounded traffic.

It needs no token: everything in it is signed, and a device believes the signatures and not the server. Any web server
can serve the same folder.
"""

import asyncio
import base64
import os
import re
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STALL: Final = 60.0  # seconds that a device may take nothing
_MIB: Final = 1024 * 1024
_HASHED: Final = re.compile(r"^([0-9a-f]{64})\.")
_VERSIONED: Final = re.compile(r"^\d+\.[a-z]+\.json$")


class BandwidthLimiter:
    """Shares so many bytes a second among all downloads; 0: no bound."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free = 0.0

    async def take(self, count: int) -> None:
        """Wait until so many bytes may go."""
        if self._rate <= 0 or count == 0:
            return
        now = asyncio.get_running_loop().time()
        start = max(now, self._free)
        self._free = start + count / self._rate
        if start > now:
            await asyncio.sleep(start - now)


class DownloadThrottle:
    """Bounds how many downloads there are and how fast they go, and ends those that stand still."""

    def __init__(self, app: ASGIApp, *, bandwidth: BandwidthLimiter, most: int, stall: float = STALL) -> None:
        self._app = app
        self._bandwidth = bandwidth
        self._most = most
        self._stall = stall
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or say when to come again."""
        if scope["type"] != "http" or self._active >= self._most:
            busy = PlainTextResponse("too many downloads\n", 503, {"Retry-After": "30"})
            await busy(scope, receive, send)
            return
        self._active += 1

        async def slowly(message: Message) -> None:
            if message["type"] == "http.response.body":
                await self._bandwidth.take(len(message.get("body", b"")))
            async with asyncio.timeout(self._stall):
                await send(message)

        try:
            await self._app(scope, receive, slowly)
        except TimeoutError:
            return  # the connection is closed by the server; the device goes on where it was
        finally:
            self._active -= 1


class _Files(StaticFiles):
    """Files whose entity tag is their content's hash, so that a broken download goes on with the same content."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        headers = headers_of(Path(full_path).name)
        response = FileResponse(full_path, status_code=status_code, headers=headers, stat_result=stat_result)
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response


def headers_of(name: str) -> dict[str, str]:
    """Hash and time to keep of a file with this name: what is named after its content never changes."""
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


def create_downloads(served: str | os.PathLike[str], *, mib_per_second: float, most: int) -> ASGIApp:
    """The folder `repository/` as an application: `/metadata/` and `/targets/`, nothing else."""
    routes = [
        Mount(f"/{part}", _Files(directory=Path(served) / part, check_dir=False)) for part in ("metadata", "targets")
    ]
    app = Starlette(routes=routes)
    return DownloadThrottle(app, bandwidth=BandwidthLimiter(mib_per_second * _MIB), most=most)
