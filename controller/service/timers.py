"""Turns the passing of time into events: silence, grace periods, ends of isolations, expired commands."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from controller.domain.events import DeadlineReached, DeviceWentStale
from controller.domain.reports import CLOCK_SET_BACK
from controller.ports.leases import Leases
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

TICK: Final = 0.25  # seconds
MOST_AT_ONCE: Final = 1000  # devices; the rest follows with the next tick
MIN_LEAP: Final = 1.0  # seconds between wall clock and monotonic clock that are a leap
REST: Final = 50  # times as long as the last search for silent devices took is waited before the next,
MAX_REST: Final = 15.0  # seconds, at most
COUNT_EVERY: Final = 2.0  # seconds between two looks at how many devices others have added, and as long a rest


class DeviceTimers:
    """Finds in the rows which devices are due. Silence counts from the last contact, but never from a time in which
    nobody could know of one: before the start, before a bucket was held, while the store could not write, and before a
    leap of the clock.
    """

    def __init__(self, fleet: FleetState, stale_after: float, leases: Leases) -> None:
        """`stale_after`: seconds without contact after which a device is stale."""
        self._fleet = fleet
        self._stale_after = stale_after
        self._leases = leases
        self._listening_since = fleet.clock.monotonic()
        self._held_since: dict[int, float] = {}
        self._clock_ahead = fleet.clock.now() - fleet.clock.monotonic()
        self._next_search = 0.0  # monotonic seconds
        self._next_count = 0.0

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK)

    async def tick(self) -> None:
        """Applies everything that is due now."""
        fleet, now = self._fleet, self._fleet.clock.now()
        if self._leases.is_shared:
            await self._count()
        buckets = self._leases.buckets if self._leases.is_shared else None
        due = await fleet.store.due(now, buckets, MOST_AT_ONCE)
        silent = await self._silent(now, buckets)
        if not due and not silent:
            return

        def decide(now: float, batch: UnitOfWork) -> None:
            for device_id in due:
                device = fleet.get(device_id)
                if device is not None and not fleet.cache.is_ahead(device_id):
                    fleet.apply(device, DeadlineReached(fleet.new_id()), now, batch)
            for device_id in silent:
                self._decide_silence(device_id, now, batch)

        await fleet.decide((*due, *silent), decide, fresh=True)

    async def _count(self) -> None:
        begun = self._fleet.clock.monotonic()
        if begun >= self._next_count:
            await self._fleet.count()
            await self._fleet.read_radius()
            ended = self._fleet.clock.monotonic()
            self._next_count = ended + COUNT_EVERY + REST * (ended - begun)

    def _decide_silence(self, device_id: str, now: float, batch: UnitOfWork) -> None:
        fleet = self._fleet
        device = fleet.get(device_id)
        if device is None or device.stale:
            return
        if now - self._stale_after <= device.last_seen <= now + CLOCK_SET_BACK:
            # Memory knows better: the row is about to be written, or holds a time from before the clock was set back.
            if not fleet.cache.is_ahead(device_id):
                batch.seen[device_id] = device
            return
        listened = fleet.clock.monotonic() - self._listening_since
        silence = now - device.last_seen if device.last_seen <= now else listened
        fleet.apply(device, DeviceWentStale(fleet.new_id(), min(silence, listened)), now, batch)

    async def _silent(self, now: float, buckets: Collection[int] | None) -> Sequence[str]:
        """Devices whose rows say that they are silent; empty while that cannot be known."""
        fleet, moment = self._fleet, self._fleet.clock.monotonic()
        ahead = now - moment
        if abs(ahead - self._clock_ahead) >= MIN_LEAP or fleet.store.health.trouble:
            self._listening_since = moment
        self._clock_ahead = ahead
        if buckets is not None:
            self._held_since = {one: self._held_since.get(one, moment) for one in buckets}
            buckets = [one for one, since in self._held_since.items() if moment - since > self._stale_after]
        if moment - self._listening_since <= self._stale_after or moment < self._next_search or buckets == []:
            return ()
        found = await fleet.store.silent(now - self._stale_after, buckets, MOST_AT_ONCE, beyond=now + CLOCK_SET_BACK)
        if len(found) < MOST_AT_ONCE:
            ended = fleet.clock.monotonic()
            self._next_search = ended + min(MAX_REST, REST * (ended - moment))
        return found
