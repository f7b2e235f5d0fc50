"""Turns the passing of time into events: silence, grace periods, ends of isolations, expired commands."""

import asyncio
from typing import Final

from controller.domain.events import DeadlineReached, DeviceWentStale
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

TICK: Final = 0.25  # seconds
MOST_AT_ONCE: Final = 1000  # devices; the rest follows with the next tick


class DeviceTimers:
    """`stale_after`: seconds without contact after which a device is stale."""

    def __init__(self, fleet: FleetState, stale_after: float) -> None:
        self._fleet = fleet
        self._stale_after = stale_after

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK)

    async def tick(self) -> None:
        """Applies everything that is due now."""
        fleet = self._fleet
        now = fleet.clock.now()
        batch = UnitOfWork()
        for device in fleet.due_devices(now, MOST_AT_ONCE):
            fleet.apply(device, DeadlineReached(fleet.new_id()), now, batch)
        for device, seconds in fleet.stale_candidates(self._stale_after, MOST_AT_ONCE):
            fleet.apply(device, DeviceWentStale(fleet.new_id(), seconds), now, batch)
        await fleet.commit(batch)
