"""Time passes, and only what it may do happens."""

from pathlib import Path

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from tests.support.controller_harness import open_harness
from tests.support.fleet_devices import devices_of
from tests.support.reports import full, heartbeat, incoming


async def test_silence_is_noticed_and_never_frees_or_contains(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch(
            [incoming("edge-1", full("edge-1", 1, 23)), incoming("edge-2", full("edge-2", 1, 22))]
        )
        harness.clock.at += 200
        digest = devices_of(harness.fleet)["edge-2"].digest
        await harness.ingest.process_batch([incoming("edge-2", heartbeat("edge-2", 2, digest), at=200.0)])
        harness.clock.at += 101
        await harness.timers.tick()
        assert not devices_of(harness.fleet)["edge-2"].stale
        assert devices_of(harness.fleet)["edge-1"].stale
        assert harness.level("edge-1") == ContainmentLevel.RESTRICTED
        await harness.timers.tick()
        assert (await harness.audited("edge-1")).count(AuditKind.DEVICE_STALE) == 1


async def test_a_restart_calls_nobody_silent_before_it_listened_long_enough(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
    async with open_harness(tmp_path / "c.db") as harness:
        harness.clock.at += 299
        await harness.timers.tick()
        assert not devices_of(harness.fleet)["edge-1"].stale
        harness.clock.at += 2
        await harness.timers.tick()
        assert devices_of(harness.fleet)["edge-1"].stale


async def test_an_isolation_steps_down_when_its_time_is_over(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 2375))])
        await harness.drain()
        assert harness.level("edge-1") == ContainmentLevel.ISOLATED
        harness.clock.at += 601
        await harness.timers.tick()
        await harness.drain()
        assert harness.level("edge-1") == ContainmentLevel.RESTRICTED
        assert harness.broker.bans_held == {}
        assert "edge-1" in harness.broker.rules_held


async def test_a_command_that_nobody_began_expires(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        await harness.drain()
        harness.clock.at += 601
        await harness.timers.tick()
        again, first = await harness.store.commands(device_id="edge-1")
        assert (first.state, first.reason) == ("expired", "not begun in time")
        assert (again.state, again.action) == ("scheduled", "service.disable")
