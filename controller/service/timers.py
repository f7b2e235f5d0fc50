"""Notices what no message tells: silence, grace periods, the end of an isolation, commands that expired."""

import asyncio
from typing import Final

from controller.domain.events import DeadlineReached, DeviceWentStale
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

TICK: Final = 0.25  # seconds
MOST_AT_ONCE: Final = 1000  # devices; the rest follows with the next tick


class DeviceTimers:
    """Turns the passing of time into events. `stale_after`: seconds a device may be silent."""

    def __init__(self, keeper: FleetState, stale_after: float) -> None:
        self._keeper = keeper
        self._stale_after = stale_after

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK)

    async def tick(self) -> None:
        """Handle everything that is due now."""
        keeper = self._keeper
        now = keeper.clock.now()
        batch = UnitOfWork()
        for device in keeper.due(now, MOST_AT_ONCE):
            keeper.apply(device, DeadlineReached(keeper.new_id()), now, batch)
        for device, seconds in keeper.silent_for(self._stale_after, MOST_AT_ONCE):
            keeper.apply(device, DeviceWentStale(keeper.new_id(), seconds), now, batch)
        await keeper.commit(batch)
