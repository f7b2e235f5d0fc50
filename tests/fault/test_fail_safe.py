"""What is contained stays contained, nothing is released by time alone, nothing new is contained on stale facts."""

import asyncio
from pathlib import Path

import pytest

from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import ContainmentLevel, PolicySet, RuleResponse
from controller.ports.broker_tables import restriction
from controller.ports.errors import BrokerUnreachableError
from tests.support.clocks import ManualClock
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.playbook import policies, rule
from tests.support.reports import full, heartbeat, incoming
from tests.support.store_faults import StoreFault, store_locked, store_read_only

DAY = 86_400.0
GUARDS = FleetGuards(fresh_for=300.0)
SLOW = 24


def _policies() -> PolicySet:
    telnet = "!listening_ports.exists(p, p == 23)"
    docker = "!listening_ports.exists(p, p == 2375)"
    slow = "!listening_ports.exists(p, p == 24)"
    return policies(
        rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED), check=telnet),
        rule("docker", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=600.0), check=docker),
        rule("slow", RuleResponse(contain=ContainmentLevel.RESTRICTED, grace=120.0), check=slow),
    )


async def _report(harness: ControllerHarness, device: str, seq: int, *ports: int) -> None:
    await harness.ingest.process_batch([incoming(device, full(device, seq, *ports), at=harness.clock.monotonic())])


async def _beat(harness: ControllerHarness, device: str, seq: int) -> None:
    digest = devices_of(harness.fleet)[device].digest
    await harness.ingest.process_batch([incoming(device, heartbeat(device, seq, digest), at=harness.clock.monotonic())])


def _waits(harness: ControllerHarness, device: str) -> bool:
    return devices_of(harness.fleet)[device].pending is not None


async def test_a_grace_period_that_ended_while_the_controller_was_down_contains_nobody(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_harness(tmp_path / "c.db", _policies(), guards=GUARDS, clock=clock) as harness:
        await _report(harness, "edge-1", 1, SLOW)
        broker = harness.broker
    clock.at += 7200
    async with open_harness(tmp_path / "c.db", _policies(), guards=GUARDS, clock=clock, broker=broker) as harness:
        for _ in range(3):
            await harness.timers.tick()
        assert harness.level("edge-1") is ContainmentLevel.NONE
        await _beat(harness, "edge-1", 2)
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED


async def test_what_was_contained_is_contained_after_any_time_without_a_controller(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_harness(tmp_path / "c.db", _policies(), guards=GUARDS, clock=clock) as harness:
        await _report(harness, "edge-1", 1, 23)
        await _report(harness, "edge-2", 1, 2375)
        await harness.drain()
        broker = harness.broker
    clock.at += 30 * DAY
    assert broker.rules_held == {one: restriction(one) for one in ("edge-1", "edge-2")}
    async with open_harness(tmp_path / "c.db", _policies(), guards=GUARDS, clock=clock, broker=broker) as harness:
        for _ in range(4):
            await harness.timers.tick()
            await harness.drain()
            clock.at += DAY
        assert [harness.level(one) for one in ("edge-1", "edge-2")] == [ContainmentLevel.RESTRICTED] * 2
        assert broker.rules_held == {one: restriction(one) for one in ("edge-1", "edge-2")}
        assert broker.bans_held == {}


async def test_silence_releases_nobody_and_lets_nothing_through(tmp_path: Path) -> None:
    guards = FleetGuards(BlastRadius(BlastRadiusLimits(1, 100.0, 60.0)), fresh_for=300.0)
    async with open_harness(tmp_path / "c.db", _policies(), guards=guards) as harness:
        await _report(harness, "edge-1", 1, 23)
        await _report(harness, "edge-2", 1, 23)
        await harness.drain()
        assert _waits(harness, "edge-2")
        for _ in range(10):
            harness.clock.at += 400.0
            await harness.timers.tick()
            await harness.drain()
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
        assert harness.level("edge-2") is ContainmentLevel.NONE
        assert not _waits(harness, "edge-2")
        await _beat(harness, "edge-2", 2)
        assert harness.level("edge-2") is ContainmentLevel.RESTRICTED, "heard again, and the window is over"


async def test_a_clock_that_jumps_contains_only_who_was_heard_of(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", _policies(), guards=GUARDS) as harness:
        await _report(harness, "edge-1", 1, SLOW)
        harness.clock.at += 299.0
        await _report(harness, "edge-2", 1, SLOW)
        harness.clock.at += 121.0
        await harness.timers.tick()
        assert harness.level("edge-2") is ContainmentLevel.RESTRICTED
        assert harness.level("edge-1") is ContainmentLevel.NONE


async def test_facts_that_other_policies_judged_contain_nobody_when_time_passes(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", _policies(), guards=GUARDS) as harness:
        await _report(harness, "edge-1", 1, SLOW)
        other = PolicySet(_policies().policies, "v2")
        harness.fleet.set_policies(other)
        harness.clock.at += 121.0
        await harness.timers.tick()
        assert harness.level("edge-1") is ContainmentLevel.NONE
        await _beat(harness, "edge-1", 2)
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED


@pytest.mark.parametrize("trouble", [store_locked, store_read_only])
async def test_a_store_that_cannot_write_neither_contains_nor_releases(tmp_path: Path, trouble: StoreFault) -> None:
    path = tmp_path / "c.db"
    async with open_harness(path, _policies(), guards=GUARDS) as harness:
        await _report(harness, "edge-1", 1, 23)
        await harness.drain()
        calls = list(harness.broker.calls)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group, trouble(harness, path):
            passing = group.create_task(_report(harness, "edge-1", 2, 22))
            failing = group.create_task(_report(harness, "edge-2", 1, 23))
            while not harness.store.health.trouble:
                await asyncio.sleep(0.01)
            await harness.drain()
            assert not passing.done()
            assert not failing.done()
            assert harness.broker.calls == calls, "nothing is done that is not on disk"
            assert harness.broker.rules_held == {"edge-1": restriction("edge-1")}
        await harness.drain()
        assert harness.broker.rules_held == {"edge-2": restriction("edge-2")}


@pytest.mark.parametrize("restart", [False, True])
async def test_while_the_brokers_api_is_away_nothing_changes_there_and_then_what_is_true_now_does(
    tmp_path: Path, restart: bool
) -> None:
    clock = ManualClock()
    async with open_harness(tmp_path / "c.db", _policies(), guards=GUARDS, clock=clock) as harness:
        await _report(harness, "edge-1", 1, 23)
        await harness.drain()
        broker = harness.broker
        broker.fails = [BrokerUnreachableError("away")] * 20
        await _report(harness, "edge-1", 2, 22)  # passes: a release that cannot be carried out
        await _report(harness, "edge-2", 1, 23)  # fails, and passes before the API is back
        await _report(harness, "edge-3", 1, 23)  # fails
        await harness.drain()
        assert broker.rules_held == {"edge-1": restriction("edge-1")}
        case = devices_of(harness.fleet)["edge-3"].case
        assert case is not None
        assert (case.proven_level, case.trouble) == (ContainmentLevel.NONE, "away")
        alerts = [one.entry for one in await harness.store.audit(alerts_only=True)]
        assert {one.device_id for one in alerts} >= {"edge-3"}
        await _report(harness, "edge-2", 2, 22)
        if not restart:
            broker.fails = []
            for device in list(harness.outbox.queue._lanes):
                harness.outbox.queue.retry_now(device)
            await harness.drain()
    if restart:
        broker.fails = []
        async with open_harness(tmp_path / "c.db", _policies(), guards=GUARDS, clock=clock, broker=broker) as harness:
            await harness.drain()
    assert broker.rules_held == {"edge-3": restriction("edge-3")}
    assert "restrict edge-2" not in broker.calls, "what was overtaken is not carried out late"
