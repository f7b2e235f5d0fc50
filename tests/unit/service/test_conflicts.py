"""Two controllers decide about the same devices: what one has not seen yet of the other is decided again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import HoldReason
from controller.domain.events import CommandRequested, DeviceLabelled, StatusChanged
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import ConflictError
from controller.ports.leases import AllLeases
from controller.ports.messages import IncomingMessage
from controller.ports.policies import PolicyError
from controller.service import conflicts
from controller.service.conflicts import MAY_GIVE_UP
from controller.service.ingest.signatures import ReportSignatureVerifier, SignatureRequirements
from controller.service.timers import DeviceTimers
from schemas.commands import CommandResult, CommandState
from schemas.posture import digest_of
from schemas.topics import DownChannel, UpChannel, down
from tests.support import reports
from tests.support.clocks import ManualClock
from tests.support.reports import full, heartbeat, incoming
from tests.support.shared_store import OneController, SharedStore, controller_over
from tests.support.store import opened

Make = Callable[..., Awaitable[OneController]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Any]:
    async with opened(tmp_path / "c.db") as real:
        yield SharedStore(real)


@pytest.fixture
def make(store: Any) -> Make:
    clock = ManualClock()

    async def made(writer: int, guards: FleetGuards = NO_GUARDS) -> OneController:
        return await controller_over(store, writer, clock, guards)

    return made


async def audited(store: Any, kind: AuditKind) -> list[str]:
    return [one.entry.device_id for one in await store.audit(kind=kind, newest_first=False)]


async def test_a_decision_is_made_again_on_what_the_other_stored(make: Make) -> None:
    one, other = await make(1), await make(2)
    for each in (one, other):
        await each.fleet.find("edge-1")
    await one.fleet.apply_and_commit("edge-1", DeviceLabelled("e1", "camera", (), "operator:ada"))
    await other.fleet.apply_and_commit("edge-1", StatusChanged("e2", True, "boot"))
    await one.fleet.apply_and_commit("edge-1", DeviceLabelled("e3", "camera", ("lab",), "operator:ada"))
    ((device, _),) = await one.fleet.store.load(["edge-1"])
    assert (device.device_class, device.tags, device.online) == ("camera", ("lab",), True)
    assert [each.fleet.size for each in (one, other)] == [1, 0]  # read anew with the next look at the fleet


async def test_the_fleet_of_a_limit_is_what_all_controllers_know(make: Make) -> None:
    one, other = await make(1), await make(2)
    await one.ingest.process_batch([incoming(f"edge-{number}", full(f"edge-{number}", 1, 22)) for number in range(3)])
    assert other.fleet.guards.fleet == 0
    leases = AllLeases()
    leases.is_shared = True  # type: ignore[misc]
    await DeviceTimers(other.fleet, 300.0, leases).tick()
    assert other.fleet.guards.fleet == 3


async def test_nothing_is_held_back_by_a_fleet_that_has_grown_meanwhile(make: Make, store: Any) -> None:
    guards = FleetGuards(BlastRadius(BlastRadiusLimits(max_devices=9, max_percent=50.0)))
    one, other = await make(1, guards), await make(2, guards)
    known = [incoming(f"edge-{number}", full(f"edge-{number}", 1, 22)) for number in range(4)]
    await one.ingest.process_batch(known)
    other.fleet.clock.at += 5.0  # type: ignore[attr-defined]
    await other.ingest.process_batch([incoming(name, full(name, 1, 23)) for name in ("edge-8", "edge-9")])
    rows = await store.load(["edge-8", "edge-9"])
    assert [device.level for device, _ in rows] == [ContainmentLevel.RESTRICTED] * 2
    assert (await store.guard_books()).waiting == {}


async def test_a_batch_is_decided_again_and_acknowledged_once(make: Make, store: Any) -> None:
    one, other = await make(1), await make(2)
    await other.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22)), incoming("edge-2", b"{")])
    await one.fleet.apply_and_commit("edge-1", DeviceLabelled("e1", "camera", (), "operator:ada"))
    batch = [incoming("edge-1", full("edge-1", 2, 23)), incoming("edge-2", b"{"), incoming("edge-3", full("edge-3", 1))]
    await other.ingest.process_batch(batch)
    assert other.link.acknowledged[-3:] == batch
    assert len(other.link.acknowledged) == 5
    counts = other.ingest.counts
    assert (counts["repeated"], counts["received"], counts["confirmed"], counts["reports"]) == (1, 5, 5, 3)
    ((device, _),) = await store.load(["edge-1"])
    assert (device.device_class, device.level) == ("camera", ContainmentLevel.RESTRICTED)
    assert await audited(store, AuditKind.CONTAINMENT_DECIDED) == ["edge-1"]
    assert len(await store.dead_letters()) == 2
    answered = [topic for topic, _ in other.link.sent if topic == down("edge-1", DownChannel.RECEIPT)]
    assert len(answered) == 2


async def test_batches_under_way_are_decided_again_in_order(make: Make, store: Any) -> None:
    one, other = await make(1), await make(2)
    await other.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
    await one.fleet.apply_and_commit("edge-1", DeviceLabelled("e1", "camera", (), "operator:ada"))
    digest = digest_of(reports.sections(22, 23))
    first = await other.ingest._decide([incoming("edge-1", full("edge-1", 2, 22, 23))])
    second = await other.ingest._decide([incoming("edge-1", heartbeat("edge-1", 3, digest)), incoming("edge-9", b"{")])
    await other.ingest._confirm(first)
    await other.ingest._confirm(second)
    assert [one.payload for one in other.link.acknowledged[1:]] == [
        message.payload for decided in (first, second) for message in decided.messages
    ]
    ((device, _),) = await store.load(["edge-1"])
    assert (device.report_seq, device.digest, device.level) == (2, digest, ContainmentLevel.RESTRICTED)
    assert await audited(store, AuditKind.REPORT_SEQUENCE_REGRESSED) == []
    assert await audited(store, AuditKind.CONTAINMENT_DECIDED) == ["edge-1"]


async def test_the_limit_of_the_fleet_holds_for_all_controllers(make: Make, store: Any) -> None:
    guards = FleetGuards(BlastRadius(BlastRadiusLimits(max_devices=1)))
    one, other = await make(1, guards), await make(2, guards)
    await one.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
    await other.ingest.process_batch([incoming("edge-2", full("edge-2", 1, 23))])
    rows = {device.device_id: device for device, _ in await store.load(["edge-1", "edge-2"])}
    assert rows["edge-1"].level is ContainmentLevel.RESTRICTED
    pending = rows["edge-2"].pending
    assert rows["edge-2"].case is None
    assert pending is not None
    assert pending.why is HoldReason.BLAST_RADIUS
    assert (other.fleet.guards.radius.waiting, list(other.fleet.guards.radius.charged)) == (1, ["edge-1"])
    await one.ingest.process_batch([incoming("edge-3", full("edge-3", 1, 23))])
    assert (await store.guard_books()).waiting == {"": 2}
    await one.fleet.read_radius()
    assert one.fleet.guards.radius.waiting == 2


async def test_a_device_that_is_new_to_both_is_one_device(make: Make, store: Any) -> None:
    one, other = await make(1), await make(2)
    await other.fleet.find("edge-1")
    await one.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
    await other.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 22))])
    ((device, _),) = await store.load(["edge-1"])
    assert (device.accepted, device.report_seq) == (2, 2)
    assert (await store.fleet_size()).devices == 1


async def test_who_waits_for_an_answer_is_told_that_others_are_always_faster(make: Make, store: Any) -> None:
    one = await make(1)
    store.refuses = ConflictError(["edge-1"])
    waits = MAY_GIVE_UP.set(True)
    with pytest.raises(ConflictError):
        await one.fleet.apply_and_commit("edge-1", StatusChanged("e", True, "boot"))
    MAY_GIVE_UP.reset(waits)
    assert one.fleet.size == 0


@pytest.mark.parametrize(
    "refusal", [ConflictError(["edge-1"]), ConflictError(policies=True), ConflictError(guards=True)]
)
async def test_others_that_are_always_faster_end_no_controller(
    make: Make, store: Any, monkeypatch: pytest.MonkeyPatch, refusal: ConflictError
) -> None:
    monkeypatch.setattr(conflicts, "PAUSE", 0.0)
    one = await make(1)
    follows = 0

    async def fails() -> None:
        nonlocal follows
        follows += 1
        raise PolicyError([])

    one.fleet.load_policies = fails
    store.refuses, store.refusals = refusal, 0
    async with asyncio.TaskGroup() as group:
        group.create_task(one.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))]))
        group.create_task(one.fleet.apply_and_commit("edge-2", StatusChanged("e", True, "boot")))
        while store.refusals < 4 * conflicts.MOST_ATTEMPTS:
            await asyncio.sleep(0)
        assert one.link.acknowledged == []
        store.refuses = None
    assert len(one.link.acknowledged) == 1
    assert one.fleet.size == 2
    assert bool(follows) is refusal.policies
    assert "tried again" in str(one.log)


async def _order(one: OneController) -> str:
    event = CommandRequested("e", "service.disable", (("name", "telnetd"),), "operator:ada", 600.0, False)
    await one.fleet.load(("edge-1",), fresh=True)
    return (await one.fleet.apply_and_commit("edge-1", event)).commands[0].command_id


def _result(command_id: str) -> IncomingMessage:
    done = CommandResult(command_id=command_id, state=CommandState.SUCCEEDED, at=datetime.now(UTC), detail={})
    return incoming("edge-1", done.model_dump_json().encode(), UpChannel.RESULT)


@pytest.mark.parametrize("is_known", [True, False])
async def test_the_result_of_a_command_of_another_controller_counts(make: Make, store: Any, is_known: bool) -> None:
    one, other = await make(1), await make(2)
    if is_known:
        await other.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
    else:
        await other.fleet.find("edge-1")
        await one.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
    command_id = await _order(one)
    await other.ingest.process_batch([_result(command_id)])
    command = await store.command(command_id)
    assert command is not None
    assert command.state == CommandState.SUCCEEDED
    assert other.ingest.counts["repeated"] == 0


async def test_what_changes_nothing_by_old_memory_is_decided_again(make: Make, store: Any) -> None:
    one, other = await make(1), await make(2)
    online, offline = [
        incoming("edge-1", f'{{"v": 1, "state": "{state}", "boot_id": "b"}}'.encode(), UpChannel.STATUS)
        for state in ("online", "offline")
    ]
    await one.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22)), online])
    await other.fleet.find("edge-1")
    await one.ingest.process_batch([offline])
    await other.ingest.process_batch([online])
    ((device, _),) = await store.load(["edge-1"])
    assert device.online
    await one.ingest.process_batch([offline])
    await other.fleet.apply_and_commit("edge-1", StatusChanged("e", True, "b"))
    ((device, _),) = await store.load(["edge-1"])
    assert device.online


async def test_a_rejection_by_old_memory_is_decided_again(make: Make, store: Any) -> None:
    one, other = await make(1), await make(2)
    keys: Any = None  # no message is signed
    other.ingest.decisions.verifier = ReportSignatureVerifier(keys, other.fleet.cache, SignatureRequirements())
    await one.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
    ((device, _),) = await store.load(["edge-1"])
    other.fleet.cache._devices["edge-1"] = replace(device, signs=True)
    other.fleet.cache.any_signs, other.fleet.cache.versions["edge-1"] = True, 1
    await other.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 23))])
    assert [device.report_seq for device, _ in await store.load(["edge-1"])] == [2]
