"""Two controllers on a real PostgreSQL contain devices at once: neither waits for the other, and the limit holds."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from controller.domain.device import Device, HoldReason
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.ports.store import StoreWrites
from tests.support.clocks import START, ManualClock
from tests.support.fleet_devices import stored_devices
from tests.support.postgres import PostgresServer
from tests.support.postgres_leases import running
from tests.support.reports import full, incoming
from tests.support.shared_store import controller_over

pytestmark = pytest.mark.postgres
DEVICES = 200  # of each controller
BATCH = 40


async def _contain_at_once(url: str, most: int) -> tuple[list[Device], int]:
    """The devices after both controllers got a failing report of each of theirs; and how many count."""
    guards = FleetGuards(BlastRadius(BlastRadiusLimits(max_devices=most)))
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(running(url, name)) for name in ("one", "other")]
        # Known before: a limit that grows with the fleet is counted anew only now and then.
        known = tuple(Device(f"d{number}-{one}", START, START) for number in (0, 1) for one in range(DEVICES))
        await stores[0].commit(StoreWrites(devices=known))
        both = [await controller_over(store, n, ManualClock(), guards) for n, store in enumerate(stores, 2)]

        async def report(number: int) -> None:
            for first in range(0, DEVICES, BATCH):
                names = [f"d{number}-{one}" for one in range(first, first + BATCH)]
                await both[number].ingest.process_batch([incoming(name, full(name, 1, 23)) for name in names])

        async with asyncio.timeout(60):
            await asyncio.gather(report(0), report(1))
        assert [len(one.link.acknowledged) for one in both] == [DEVICES, DEVICES]
        return list(await stored_devices(stores[0])), len((await stores[1].guard_books()).charges)


async def test_all_that_the_limit_allows_are_contained(server: PostgresServer, database: str) -> None:
    devices, charged = await _contain_at_once(server.url(database), 2 * DEVICES)
    assert len(devices) == charged == 2 * DEVICES
    assert all(device.case is not None for device in devices)


async def test_not_one_more_than_the_limit_is_contained(server: PostgresServer, database: str) -> None:
    devices, charged = await _contain_at_once(server.url(database), 150)
    waiting = [one for one in devices if one.pending is not None and one.pending.why is HoldReason.BLAST_RADIUS]
    assert len(devices) == 2 * DEVICES
    assert charged == len([one for one in devices if one.case is not None]) == len(devices) - len(waiting)
    assert 100 < charged <= 150
