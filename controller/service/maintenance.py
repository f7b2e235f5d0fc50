"""Takes away what was kept long enough, so that the store does not grow for ever."""

import asyncio
import gc
from typing import Final

from controller.ports.clock import Clock
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.store import Store
from controller.ports.updates import UpdateRepository, UpdatesError

FIRST: Final = 120.0  # seconds after the start: first the fleet's reports
EVERY: Final = 86_400.0  # seconds
RETRY: Final = 3600.0  # seconds after a round that the store refused


class StoreMaintenance:
    """Prunes the store once a day. `last_round`: when that last succeeded (Unix seconds); `pruned`: rows so far."""

    def __init__(self, store: Store, clock: Clock, log: Log) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self.last_round: float | None = None
        self.pruned = 0

    async def run(self) -> None:
        """Until cancelled."""
        pause = FIRST
        while True:
            await asyncio.sleep(pause)
            pause = EVERY if await self.round() else RETRY

    async def round(self) -> bool:
        """One look; whether the store took it."""
        try:
            rows = await self._store.prune()
            head = await self._store.audit_head()
        except StoreError as e:
            self._log("cannot prune the store", {"error": str(e)})
            return False
        self.pruned += rows
        self.last_round = self._clock.now()
        self._log("store pruned", {"rows": rows})
        # In the log of another machine it shows an end that was cut off, or a record that was written anew.
        self._log("head of the record", {"head": str(head)})
        return True


class MetadataRefresher:
    """`trouble`: why the last look failed, empty when it did not; `warnings`: what offline keys have to do soon."""

    def __init__(self, repository: UpdateRepository, clock: Clock, every: float, log: Log) -> None:
        self._repository = repository
        self._clock = clock
        self._every = every
        self._log = log
        self.trouble = ""
        self.warnings: tuple[str, ...] = ()
        self.last_look: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(self._every)

    async def round(self) -> None:
        """One look; what it finds is logged when it changed."""
        try:
            done = await asyncio.to_thread(self._repository.refresh, self._clock.now())
        except UpdatesError as e:
            if str(e) != self.trouble:
                self._log("metadata of updates cannot be renewed", {"error": str(e)})
            self.trouble = str(e)
            return
        if self.trouble:
            self._log("metadata of updates is renewed again", {})
        self.trouble, self.last_look = "", self._clock.now()
        if done.signed:
            self._log("metadata of updates signed", {"roles": list(done.signed)})
        if done.warnings != self.warnings:
            for text in done.warnings:
                self._log("updates need offline keys", {"warning": text})
        self.warnings = done.warnings


# Collections after so many new objects (by default 700, 10, 10): a batch makes tens of thousands, and no cycles. The
# last one looks at all devices that changed since the start.
_YOUNG: Final = 50_000
_MIDDLE: Final = 20
_OLD: Final = 1000


def settle() -> None:
    """What is there now stays; look for garbage rarely. To be called once, when everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
