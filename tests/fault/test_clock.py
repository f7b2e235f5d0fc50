"""The machine's clock is set, forward and back, while the controller runs: `now` jumps, monotonic time does not."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.events import CommandRequested, ReleaseOrdered
from controller.domain.policy.model import ContainmentLevel
from schemas.topics import DownChannel, down
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.reports import full, heartbeat, incoming

DAY = 86_400.0
STALE_AFTER = 300.0  # as `open_harness` sets it
ISOLATED_FOR = 600.0
DEVICES = [f"edge-{number}" for number in range(50)]


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[ControllerHarness]:
    """A controller with fifty healthy devices, whose clock can be set."""
    async with open_harness(tmp_path / "c.db") as made:
        await made.ingest.process_batch([incoming(name, full(name, 1, 22)) for name in DEVICES])
        yield made


def set_clock(harness: ControllerHarness, by: float) -> None:
    harness.clock.offset += by


async def beat(harness: ControllerHarness, seq: int) -> None:
    digest = devices_of(harness.fleet)[DEVICES[0]].digest
    at = harness.clock.monotonic()
    await harness.ingest.process_batch([incoming(name, heartbeat(name, seq, digest), at=at) for name in DEVICES])


def stale(harness: ControllerHarness) -> int:
    return sum(device.stale for device in devices_of(harness.fleet).values())


@pytest.mark.parametrize("jump", [DAY, -DAY, 400 * DAY])
async def test_no_device_is_stale_because_the_clock_was_set(harness: ControllerHarness, jump: float) -> None:
    set_clock(harness, jump)
    for seq in range(2, 12):
        await harness.timers.tick()
        harness.clock.at += 60.0
        await beat(harness, seq)
    await harness.timers.tick()
    assert stale(harness) == 0
    set_clock(harness, -jump)
    for seq in range(12, 22):
        await harness.timers.tick()
        harness.clock.at += 60.0
        await beat(harness, seq)
    await harness.timers.tick()
    assert stale(harness) == 0


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_who_is_silent_is_found_in_time_however_the_clock_was_set(
    harness: ControllerHarness, jump: float
) -> None:
    await beat(harness, 2)
    set_clock(harness, jump)
    await beat(harness, 3)
    set_clock(harness, -jump)
    harness.clock.at += STALE_AFTER - 1
    await harness.timers.tick()
    assert stale(harness) == 0
    harness.clock.at += 2
    await harness.timers.tick()
    assert stale(harness) == len(DEVICES)
    silence = (await harness.store.audit(kind=AuditKind.DEVICE_STALE))[0].entry.detail
    assert silence is not None
    assert STALE_AFTER < float(str(silence["after_seconds"])) < STALE_AFTER + 5


async def test_an_isolation_ends_earlier_by_no_more_than_the_jump(harness: ControllerHarness) -> None:
    await harness.ingest.process_batch([incoming("edge-0", full("edge-0", 2, 2375))])
    await harness.drain()
    set_clock(harness, ISOLATED_FOR / 2)
    harness.clock.at += ISOLATED_FOR / 2 - 1
    await harness.timers.tick()
    assert harness.level("edge-0") is ContainmentLevel.ISOLATED
    harness.clock.at += 2
    await harness.timers.tick()
    await harness.drain()
    assert harness.level("edge-0") is ContainmentLevel.RESTRICTED  # and never free by time alone


async def test_after_a_jump_back_an_isolation_lasts_longer_and_an_operator_can_end_it(
    harness: ControllerHarness,
) -> None:
    await harness.ingest.process_batch([incoming("edge-0", full("edge-0", 2, 2375))])
    await harness.drain()
    set_clock(harness, -DAY)
    harness.clock.at += ISOLATED_FOR + 1
    await harness.timers.tick()
    assert harness.level("edge-0") is ContainmentLevel.ISOLATED
    assert await harness.reconciler.reconcile() == []
    await harness.fleet.apply_and_commit("edge-0", ReleaseOrdered(harness.fleet.new_id(), "op", "clock was wrong"))
    await harness.drain()
    assert harness.level("edge-0") is ContainmentLevel.RESTRICTED


async def test_command_counters_and_ids_grow_through_jumps_in_both_directions(harness: ControllerHarness) -> None:
    counters, ids = [], []
    for jump in (0.0, DAY, -2 * DAY, DAY):
        set_clock(harness, jump)
        harness.clock.at += 1.0
        fleet = harness.fleet
        await fleet.apply_and_commit(
            "edge-0", CommandRequested(fleet.new_id(), "rescan", (), "op", 600.0, dry_run=False)
        )
        await harness.drain()
        sent = [raw for topic, raw in harness.link.sent if topic == down("edge-0", DownChannel.COMMAND)]
        counters.append(json.loads(sent[-1].removeprefix(b"signed:"))["counter"])
        ids.append(fleet.new_id())
    assert counters == sorted(set(counters))
    assert ids == sorted(set(ids))


async def test_reports_are_accepted_and_judged_through_jumps(harness: ControllerHarness) -> None:
    for seq, (jump, port, level) in enumerate(
        (
            (DAY, 23, ContainmentLevel.RESTRICTED),
            (-2 * DAY, 22, ContainmentLevel.NONE),
            (DAY, 23, ContainmentLevel.RESTRICTED),
            (DAY, 22, ContainmentLevel.NONE),
        ),
        2,
    ):
        set_clock(harness, jump)
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", seq, port))])
        await harness.drain()
        assert harness.level("edge-1") is level
