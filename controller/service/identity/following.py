"""Follows what other controllers on the store revoked and published."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from controller.ports.certificates import PublishedCrl, SharedRevocations
from controller.ports.clock import Clock
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.identity.crl_publisher import CrlPublisher

FOLLOW_EVERY: Final = 1.0  # seconds
_WINDOW: Final = 60.0  # seconds that each pass looks back at: more than clocks differ, and a pass may be late


class RevocationFollower:
    """`on_changed` is called with the name of a device whose certificate was revoked, here or elsewhere."""

    def __init__(
        self,
        shared: SharedRevocations,
        crls: CrlPublisher,
        on_changed: Callable[[str], None],
        clock: Clock,
        log: Log,
    ) -> None:
        self._shared = shared
        self._crls = crls
        self._on_changed = on_changed
        self._clock = clock
        self._log = log
        self._seen: set[str] = set()  # serial numbers
        self._lists: Sequence[PublishedCrl] | None = None

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_EVERY)
            try:
                await self.run_once()
            except StoreError as e:
                self._log("revocations of other controllers are not known now", {"error": str(e)})

    async def run_once(self) -> None:
        """Takes what is new: however long its commit took, a new list comes after it, and then all are looked at."""
        await self._crls.follow()
        lists = self._crls.lists
        is_complete = lists != self._lists
        found = await self._shared.revoked_since(0.0 if is_complete else self._clock.now() - _WINDOW)
        for name in dict.fromkeys(name for serial, name in found if serial not in self._seen):
            self._on_changed(name)
        self._seen.update(serial for serial, _ in found)
        self._lists = lists
