"""How many exchanges are in flight at once, and which waits."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum


class CallRank(IntEnum):
    """Which calls go first."""

    VIOLATION = 0  # cut a device that violates a policy
    URGENT = 1  # cut a device that an operator contains, perhaps with many others
    OTHER = 2


class PrioritySemaphore:
    """A semaphore with a queue for each rank: a lower rank goes first, each queue in order of arrival."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._queues: tuple[deque[asyncio.Future[None]], ...] = tuple(deque() for _ in CallRank)

    @asynccontextmanager
    async def acquire(self, rank: CallRank) -> AsyncIterator[None]:
        """Waits for a slot and holds it until the end of the block."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._queues[rank])
        try:
            yield
        finally:
            self._release()

    async def _wait(self, queue: deque[asyncio.Future[None]]) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._release()  # the slot arrived in the same moment
            raise

    def _release(self) -> None:
        for queue in self._queues:
            while queue:
                following = queue.popleft()
                if not following.done():
                    following.set_result(None)
                    return
        self._free += 1
