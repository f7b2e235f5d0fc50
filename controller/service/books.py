"""What every controller holds of the books that the leader keeps: loaded anew when another controller changed them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from controller.ports.errors import StoreError
from controller.ports.leases import Leases
from controller.ports.log import Log

POLL: Final = 1.0  # seconds


class Books:
    """Waivers with their expressions, scopes for a while, knowledge.

    Not while this controller leads: it changes them itself, and its memory is ahead of the store during a commit.
    """

    def __init__(
        self,
        version: Callable[[], Awaitable[int]],
        loads: Sequence[Callable[[], Awaitable[None]]],
        leases: Leases,
        log: Log,
    ) -> None:
        """`version` grows with every change in the store; each of `loads` reads one of the books."""
        self._version = version
        self._loads = tuple(loads)
        self._leases = leases
        self._log = log
        self._loaded = -1

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            if not self._leases.is_leader:
                try:
                    await self.refresh()
                except StoreError as e:
                    self._log("books cannot be read", {"error": str(e)})
            await asyncio.sleep(POLL)

    async def refresh(self) -> None:
        """Loads the books if they changed.

        Raises:
            StoreError: they could not be read; the next call tries again.
        """
        if await self._version() != self._loaded:
            await self.load()

    async def load(self) -> None:
        """Loads the books.

        Raises:
            StoreError: they could not be read.
        """
        # Read first: what changes during the loads is loaded again.
        version = await self._version()
        for load in self._loads:
            await load()
        self._loaded = version
