"""Requests to another controller's API, over a few connections of this process alone."""

import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Self

import httpx

from controller.ports.peers import PeerAnswer, PeerError, PeerRequest, UnsendableRequestError

AT_ONCE: Final = 32  # connections: half of what a listener takes of one address by default
CONNECT_SECONDS: Final = 2.0
ROOM_SECONDS: Final = 5.0  # in which a connection has to become free
WRITE_SECONDS: Final = 10.0
READ_SECONDS: Final = 70.0  # between two parts of an answer: a request may wait 55 s for a proof
_IDLE_SECONDS: Final = 2.0  # less than the other side keeps an idle connection: none is used while that side closes it
_LIMITS: Final = {
    "connect": CONNECT_SECONDS,
    "pool": ROOM_SECONDS,
    "write": WRITE_SECONDS,
    "read": READ_SECONDS,
}
# Nothing of the request has left this machine.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def loopback_mark() -> str:
    """Names the network of this process's loopback addresses: another one on each host, and in most containers.

    Empty where it is not known.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        network = Path("/proc/self/ns/net").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot.strip()} {network}".encode()).hexdigest()[:16]


class HttpPeers:
    """`controller.ports.peers.Peers`. Nothing is followed, repeated or remembered: no redirect, no cookie, no proxy."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    @classmethod
    def over_tls(cls, tls: ssl.SSLContext) -> Self:
        """`tls` verifies the certificates of the others."""
        limits = httpx.Limits(
            max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE, keepalive_expiry=_IDLE_SECONDS
        )
        return cls(httpx.AsyncHTTPTransport(verify=tls, limits=limits, trust_env=False))

    async def close(self) -> None:
        await self._transport.aclose()

    @contextlib.asynccontextmanager
    async def send(self, base: str, request: PeerRequest) -> AsyncIterator[PeerAnswer]:
        try:
            response = await self._transport.handle_async_request(_made(base, request))
        except httpx.HTTPError as e:
            raise PeerError(str(e) or type(e).__name__, was_sent=not isinstance(e, _NOT_SENT)) from e
        try:
            yield PeerAnswer(response.status_code, tuple(response.headers.raw), _chunks(response))
        finally:
            await response.aclose()


def _made(base: str, request: PeerRequest) -> httpx.Request:
    try:
        url = httpx.URL(base).copy_with(raw_path=request.target)
    except (httpx.InvalidURL, UnicodeDecodeError) as e:
        raise UnsendableRequestError from e
    if url.raw_path != request.target:
        raise UnsendableRequestError
    extensions = {"timeout": _LIMITS}
    return httpx.Request(
        request.method, url, headers=list(request.headers), content=request.body, extensions=extensions
    )


async def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it was sent, with its encoding."""
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except httpx.HTTPError as e:
        raise PeerError(str(e) or type(e).__name__, was_sent=True) from e
