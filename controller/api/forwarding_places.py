"""How many requests are forwarded to the leader at a time: nobody keeps others from reaching it."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Scope

from controller.api.errors import ApiError
from controller.domain.accounts.caller import Caller
from controller.domain.client_address import counted_as

ROOM_SECONDS: Final = 5.0  # for a place
# Together as many as there are connections to the leader (`adapters.http_peers.AT_ONCE`).
STRANGERS: Final = 8
CALLERS: Final = 24
EACH_STRANGER: Final = 2  # of one address, an IPv6 /64 as one
EACH_CALLER: Final = 8


class BusyError(ApiError):
    """Too many requests are forwarded at this time."""

    def __init__(self) -> None:
        super().__init__(429, "busy", "too many requests to the leader are under way: try again", {"Retry-After": "5"})


class _Places:
    """Places of all, and of each; who has no room waits for `ROOM_SECONDS`."""

    def __init__(self, total: int, each: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._each = each
        self._own: dict[str, asyncio.Semaphore] = {}
        self._users = Counter[str]()

    @contextlib.asynccontextmanager
    async def hold(self, who: str) -> AsyncIterator[None]:
        """Holds a place.

        Raises:
            BusyError: there is no room.
        """
        own = self._own.setdefault(who, asyncio.Semaphore(self._each))
        self._users[who] += 1
        try:
            async with contextlib.AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(ROOM_SECONDS):
                        # First the own one: who has too many waits for itself, and not before others.
                        await held.enter_async_context(own)
                        await held.enter_async_context(self._all)
                except TimeoutError as e:
                    raise BusyError from e
                yield
        finally:
            self._users[who] -= 1
            if not self._users[who]:
                del self._users[who], self._own[who]


class ForwardingPlaces:
    """Those with a valid token or session have most of the places, whatever others send."""

    def __init__(self) -> None:
        self._callers = _Places(CALLERS, EACH_CALLER)
        self._strangers = _Places(STRANGERS, EACH_STRANGER)

    def hold(self, scope: Scope) -> contextlib.AbstractAsyncContextManager[None]:
        """A place for a request, whose caller `auth.presented_scopes` has left in its state; raises `BusyError`."""
        presented = scope.get("state", {}).get("presented")
        if isinstance(presented, Caller):
            return self._callers.hold(presented.principal.key)
        return self._strangers.hold(counted_as((scope.get("client") or ("",))[0]))
