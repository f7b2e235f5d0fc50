"""Housekeeping: prunes the store, keeps the metadata of updates valid, tunes the garbage collector."""

import asyncio
import gc
from typing import Final

from controller.ports.clock import Clock
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.store import Store
from controller.ports.updates import UpdateRepository, UpdatesError

FIRST: Final = 120.0  # seconds after the start: the fleet's first reports come before
EVERY: Final = 86_400.0  # seconds
RETRY: Final = 3600.0  # seconds after a failure


class StoreMaintenance:
    """Prunes the store once a day."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log

    async def run(self) -> None:
        """Runs until cancelled."""
        pause = FIRST
        while True:
            await asyncio.sleep(pause)
            pause = RETRY if await self.run_once() is None else EVERY

    async def run_once(self) -> int | None:
        """Returns how many rows were deleted; `None` if the store failed."""
        try:
            rows = await self._store.prune()
            heads = await self._store.audit_heads()
        except StoreError as e:
            self._log("cannot prune the store", {"error": str(e)})
            return None
        self._log("store pruned", {"rows": rows})
        # In the log of another machine, the head shows later that the end of the audit log was cut off or rewritten.
        self._log("head of the record", {"head": str(heads)})
        return rows


class MetadataRefresher:
    """Has the online keys sign the metadata of updates before it expires.

    `trouble`: why the last run failed, else empty. `warnings`: what offline keys must sign soon.
    """

    def __init__(self, repository: UpdateRepository, clock: Clock, every: float, log: Log) -> None:
        self._repository = repository
        self._clock = clock
        self._every = every
        self._log = log
        self.trouble = ""
        self.warnings: tuple[str, ...] = ()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(self._every)

    async def run_once(self) -> None:
        """Refreshes the metadata; changes of trouble and warnings are logged."""
        try:
            done = await asyncio.to_thread(self._repository.refresh, self._clock.now())
        except UpdatesError as e:
            if str(e) != self.trouble:
                self._log("metadata of updates cannot be renewed", {"error": str(e)})
            self.trouble = str(e)
            return
        if self.trouble:
            self._log("metadata of updates is renewed again", {})
        self.trouble = ""
        if done.signed:
            self._log("metadata of updates signed", {"roles": list(done.signed)})
        if done.warnings != self.warnings:
            for text in done.warnings:
                self._log("updates need offline keys", {"warning": text})
        self.warnings = done.warnings


# Thresholds of the three generations (by default 700, 10, 10): a batch makes tens of thousands of objects and no
# cycles, and a collection of the oldest generation visits all devices that changed since the start.
_YOUNG: Final = 50_000
_MIDDLE: Final = 20
_OLD: Final = 1000


def tune_gc() -> None:
    """Exempts everything loaded so far from collections and makes them rare; call it once, after loading."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
