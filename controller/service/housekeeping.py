"""Takes away what was kept long enough, so that the store does not grow for ever."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from controller.ports.clock import Clock
from controller.ports.errors import StoreError
from controller.ports.store import Store

FIRST: Final = 120.0  # seconds after the start: first the fleet's reports
EVERY: Final = 86_400.0  # seconds
RETRY: Final = 3600.0  # seconds after a round that the store refused

Log = Callable[[str, Mapping[str, object]], None]


class Housekeeping:
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
