"""Two controllers on one PostgreSQL decide about the same devices, each with room for few of them in memory."""

from collections.abc import AsyncIterator

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.events import DeviceLabelled, DeviceWentStale, StatusChanged
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import ContainmentLevel
from tests.contract.store.conftest import StorePlace
from tests.support.clocks import ManualClock
from tests.support.reports import full, incoming
from tests.support.shared_store import OneController, controller_over

pytestmark = pytest.mark.postgres
GUARDS = FleetGuards(BlastRadius(BlastRadiusLimits(max_devices=2)))


@pytest.fixture
async def pair(shared_place: StorePlace) -> AsyncIterator[tuple[OneController, OneController]]:
    clock = ManualClock()
    async with shared_place.opened() as first, shared_place.opened_beside() as second:
        one = await controller_over(first, 1, clock, GUARDS, most=4)
        yield one, await controller_over(second, 2, clock, GUARDS, most=4)


async def test_both_decisions_about_one_device_hold(pair: tuple[OneController, OneController]) -> None:
    one, other = pair
    for each in pair:
        await each.fleet.find("edge-1")
    await one.fleet.apply_and_commit("edge-1", DeviceLabelled("e1", "camera", (), "operator:ada"))
    await other.fleet.apply_and_commit("edge-1", StatusChanged("e2", True, "boot"))
    await one.fleet.apply_and_commit("edge-1", DeviceLabelled("e3", "camera", ("lab",), "operator:ada"))
    device = await other.fleet.find("edge-1")
    assert device is not None
    assert (device.device_class, device.tags, device.online) == ("camera", ("lab",), True)


async def test_messages_in_turn_at_both_are_one_history(pair: tuple[OneController, OneController]) -> None:
    devices = [f"edge-{number}" for number in range(10)]
    for seq in range(1, 7):
        each = pair[seq % 2]
        ports = (22,) if seq < 5 else (23,)
        await each.ingest.process_batch([incoming(name, full(name, seq, *ports)) for name in devices])
    one, other = pair
    assert other.ingest.counts["repeated"] + one.ingest.counts["repeated"] > 0
    assert (len(one.link.acknowledged), len(other.link.acknowledged)) == (30, 30)
    found = await one.fleet.store.load(devices)
    assert {device.report_seq for device, _ in found} == {6}
    # Two devices are all that the guards let be contained, whichever controller decides.
    levels = [device.level for device, _ in found]
    assert levels.count(ContainmentLevel.RESTRICTED) == 2
    assert sum(device.pending is not None for device, _ in found) == 8
    assert len(await one.fleet.store.audit(kind=AuditKind.CONTAINMENT_DECIDED)) == 2
    assert await one.fleet.store.audit(kind=AuditKind.REPORT_SEQUENCE_REGRESSED) == []
    assert (await one.fleet.store.check_audit()).is_intact


async def test_what_is_only_checked_is_refused_if_it_is_old_and_changes_no_row(
    pair: tuple[OneController, OneController],
) -> None:
    one, other = pair
    await one.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
    await other.fleet.find("edge-1")
    clock = one.fleet.clock
    assert isinstance(clock, ManualClock)
    clock.at += 60.0
    await one.fleet.apply_and_commit("edge-1", DeviceWentStale("e1", 60.0))
    await one.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 22))])
    await one.fleet.apply_and_commit("edge-1", StatusChanged("e2", True, "boot"))
    ((before, version),) = await one.fleet.store.load(["edge-1"])
    await other.ingest.process_batch([incoming("edge-1", b"{")])
    assert other.ingest.counts["repeated"] == 1
    assert await one.fleet.store.load(["edge-1"]) == [(before, version)]
    assert other.fleet.get("edge-1") == before
