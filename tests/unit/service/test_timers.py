"""Time passes, and only what it may do happens."""

from pathlib import Path

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from tests.support.controller_harness import world
from tests.support.reports import full, heartbeat, incoming


async def test_silence_is_noticed_and_never_frees_or_contains(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await place.ingest.process_batch(
            [incoming("edge-1", full("edge-1", 1, 23)), incoming("edge-2", full("edge-2", 1, 22))]
        )
        place.clock.at += 200
        digest = place.fleet.devices["edge-2"].digest
        await place.ingest.process_batch([incoming("edge-2", heartbeat("edge-2", 2, digest), at=200.0)])
        place.clock.at += 101
        await place.timers.tick()
        assert not place.fleet.devices["edge-2"].stale
        assert place.fleet.devices["edge-1"].stale
        assert place.level("edge-1") == ContainmentLevel.RESTRICTED
        await place.timers.tick()
        assert (await place.audited("edge-1")).count(AuditKind.DEVICE_STALE) == 1


async def test_a_restart_calls_nobody_silent_before_it_listened_long_enough(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await place.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
    async with world(tmp_path / "c.db") as place:
        place.clock.at += 299
        await place.timers.tick()
        assert not place.fleet.devices["edge-1"].stale
        place.clock.at += 2
        await place.timers.tick()
        assert place.fleet.devices["edge-1"].stale


async def test_an_isolation_steps_down_when_its_time_is_over(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await place.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 2375))])
        await place.drain()
        assert place.level("edge-1") == ContainmentLevel.ISOLATED
        place.clock.at += 601
        await place.timers.tick()
        await place.drain()
        assert place.level("edge-1") == ContainmentLevel.RESTRICTED
        assert place.broker.bans_held == {}
        assert "edge-1" in place.broker.rules_held


async def test_a_command_that_nobody_began_expires(tmp_path: Path) -> None:
    async with world(tmp_path / "c.db") as place:
        await place.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        await place.drain()
        place.clock.at += 601
        await place.timers.tick()
        again, first = await place.store.commands(device_id="edge-1")
        assert (first.state, first.reason) == ("expired", "not begun in time")
        assert (again.state, again.action) == ("scheduled", "service.disable")
