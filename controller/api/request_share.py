"""How many requests one address may have worked on, so that none keeps the event loop from others and from devices."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from controller.api.errors import answer
from controller.domain.client_address import counted_as

PER_SECOND: Final = 100.0  # requests of one address, sustained: an office of devices that enrol, or fetch metadata
BURST: Final = 400  # requests at once
WITH_TOKEN: Final = 0.25  # of a request: what one with a valid token counts
_EXACT: Final = 1e-6  # seconds; sums of fractions are not exact
MAX_WAIT: Final = 5.0  # seconds; who would have to wait longer is told to come again
MAX_ADDRESSES: Final = 10_000  # that sent requests within the last seconds


class RequestShare:
    """ASGI middleware; requests of an address beyond its share wait, those of others do not.

    Waiting costs nothing and refuses nobody, and each connection has one request at a time: the devices behind one
    address all get their turn. An IPv6 /64 counts as one address.
    """

    def __init__(
        self,
        app: ASGIApp,
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`now` returns monotonic seconds, the loop's by default."""
        self._app = app
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._paid_until: dict[str, float] = {}  # as in `service.ingest.rate_limit`: a bucket is one number

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = counted_as((scope.get("client") or ("",))[0])
        wait = self._reserve(address)
        if wait > MAX_WAIT:
            headers = {"Retry-After": str(int(wait) + 1)}
            busy = answer(429, "too_many_requests", "too many requests of this address: try again", headers)
            await busy(scope, receive, send)
            return
        if wait > _EXACT:
            await self._sleep(wait)
        try:
            await self._app(scope, receive, send)
        finally:
            if scope.get("state", {}).get("caller") is not None and address in self._paid_until:
                self._paid_until[address] -= (1.0 - WITH_TOKEN) / PER_SECOND

    def _reserve(self, address: str) -> float:
        """Takes a place for a request of the address; returns the seconds until it is its turn."""
        now = self._now()
        at = max(self._paid_until.get(address, now), now)
        wait = at - now - (BURST - 1) / PER_SECOND
        if wait <= MAX_WAIT:
            if address not in self._paid_until and len(self._paid_until) >= MAX_ADDRESSES:
                self._forget(now)
            self._paid_until[address] = at + 1.0 / PER_SECOND
        return wait

    def _forget(self, now: float) -> None:
        """Drops addresses that have their whole share again; if that is not enough, those that used it least."""
        left = sorted((at, address) for address, at in self._paid_until.items() if at > now)
        self._paid_until = {address: at for at, address in left[-MAX_ADDRESSES // 2 :]}
