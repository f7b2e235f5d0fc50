"""Rollouts in the field: unreadable reports, absence, pauses, leaps of the clock, withdrawn updates, late returns."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.rollout.model import MemberState, RevertState, RolloutError, RolloutState
from controller.domain.rollout.window import parse_window
from controller.service.rollout.engine import TARGET_FRESH
from tests.support.clocks import START
from tests.support.rollouts import BY, SECOND, RolloutHarness, open_rollouts, seed_devices

UNREADABLE = {"state": "unknown", "reason": "timeout"}
DAY = 86_400.0  # seconds
NIGHT = datetime.fromtimestamp(START, UTC).replace(hour=2, minute=0, second=0).timestamp() + DAY


async def test_one_unreadable_report_neither_fails_nor_skips_a_device(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.report_sections("c1", software=UNREADABLE)
        await made.start(rollback_on_error=True)
        await made.install("t1")
        await made.report_sections("t1", software=UNREADABLE)
        await made.report_sections("t1", software=None)
        await made.go()
        assert (await made.members())["t1"].state is MemberState.CONFIRMED
        await made.go(61.0)
        assert (await made.members())["c1"].state is MemberState.AWAY
        assert set(made.orders()) == {"t1", "c2"}
        await made.report("c1")
        await made.go()
        assert set(made.orders()) == {"t1", "c1", "c2"}


async def test_readable_report_during_a_restart_is_heard(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.report_sections("t1", software=UNREADABLE)
        await made.start()
        await made.report("t1")
    async with open_rollouts(tmp_path / "db") as made:
        await made.go()
        assert set(made.orders()) == {"t1"}


async def test_blank_hardware_is_updated_like_a_new_device(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rollback_on_error=True)
        await made.install("t1")
        first = made.orders()["t1"]["command_id"]
        await made.report("t1", version="")
        await made.go()
        assert made.orders()["t1"]["command_id"] != first
        await made.install("t1")
        await made.go(61.0)
        assert (await made.now()).rings[0].confirmed == 1
        assert "c1" in made.orders()


async def test_device_that_is_off_outside_its_window_is_updated_when_it_opens(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.status("t1", "offline")
        await made.start(window=parse_window("02:00-05:00"))
        await made.go(1_800.0)
        assert (await made.members())["t1"].state is MemberState.PENDING
        await made.status("t1", "online")
        made.harness.clock.at = NIGHT + 3 * 3_600.0 - 120.0
        await made.report("t1")
        await made.go()
        order = made.orders()["t1"]
        assert order["params"]["deadline"].startswith("2027-01-16T05:00:00")


async def test_paused_rollout_stops_nothing_while_a_device_is_off(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.status("t1", "offline")
        await made.start()
        await made.desk.pause("r-0001", BY.actor)
        await made.go(7 * DAY)
        assert (await made.now()).state is RolloutState.RUNNING
        await made.desk.resume("r-0001", BY.actor)
        await made.status("t1", "online")
        await made.report("t1")
        await made.go()
        assert set(made.orders()) == {"t1"}


@pytest.mark.parametrize("leap", [DAY, -DAY])
async def test_soak_time_survives_a_leap_of_the_clock(tmp_path: Path, leap: float) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        await made.install("t1")
        made.harness.clock.offset = leap
        await made.go(30.0)
        assert (await made.now()).state is RolloutState.SOAKING
        await made.go(31.0)
        assert (await made.now()).ring == 1
        kinds = [one.entry.kind for one in await made.harness.store.audit(limit=200, newest_first=False)]
        assert kinds.count(AuditKind.ROLLOUT_CLOCK_LEAPT) == 1


async def test_withdrawn_target_stops_orders(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rollback_on_error=True)
        await made.install("t1")
        made.targets.targets = ()
        await made.go(61.0)
        rollout = await made.now()
        assert rollout.state is RolloutState.STOPPED
        assert "withdrawn" in rollout.why
        assert [ring.errors for ring in rollout.rings] == [0, 0, 0]
        assert set(made.orders()) == {"t1"}


async def test_rollout_waits_while_the_repository_cannot_be_read(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        made.targets.is_readable = False
        await made.start()
        await made.go(60.0)
        assert made.orders() == {}
        assert (await made.now()).state is RolloutState.RUNNING
        made.targets.is_readable = True
        await made.go(TARGET_FRESH)
        assert set(made.orders()) == {"t1"}


async def rolled_back_without(made: RolloutHarness, device_id: str) -> None:
    """A rollout that is taken back while a device that has it is off."""
    await seed_devices(made)
    await made.start(rings=(("only", "tag:ring:canary"),), approval=False)
    await made.install("c1", "c2")
    await made.status(device_id, "offline")
    await made.desk.abort("r-0001", SECOND.actor, revert=True)
    await made.go()
    assert made.orders()[device_id]["action"] == "update.install"


async def test_device_that_was_off_goes_back_when_it_is_heard(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await rolled_back_without(made, "c2")
        await made.report("c1", version="1.0")
        await made.go()
        assert (await made.now()).state is RolloutState.ABORTED
    async with open_rollouts(tmp_path / "db") as made:
        made.seq = 100
        await made.go(30 * DAY)
        assert "c2" not in made.orders()
        await made.status("c2", "online")
        await made.report("c2", version="2.0")
        await made.go()
        assert made.orders()["c2"]["action"] == "update.rollback"
        await made.report("c2", version="1.0")
        await made.go()
        assert (await made.members())["c2"].revert is RevertState.REVERTED
        assert made.rollouts.runs == {}


async def test_device_that_falls_silent_while_it_goes_back_is_ordered_again(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rings=(("only", "tag:ring:test"),), approval=False)
        await made.install("t1")
        await made.desk.abort("r-0001", SECOND.actor, revert=True)
        await made.go()
        first = made.orders()["t1"]["command_id"]
        await made.status("t1", "offline")
        await made.go(700.0)
        member = (await made.members())["t1"]
        assert (member.revert, (await made.now()).state) == (RevertState.AWAY, RolloutState.ABORTED)
        await made.status("t1", "online")
        await made.report("t1", version="2.0")
        await made.go()
        assert made.orders()["t1"]["command_id"] != first


async def test_device_that_refused_to_go_back_can_be_asked_again(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rings=(("only", "tag:ring:test"),), approval=False)
        await made.install("t1")
        await made.desk.abort("r-0001", SECOND.actor, revert=True)
        await made.go()
        first = made.orders()["t1"]["command_id"]
        await made.tell("t1", "failed", "failed", "the disk is full")
        await made.go()
        assert (await made.members())["t1"].revert is RevertState.NOT_REVERTED
        alerts = [one.entry.kind for one in await made.harness.store.audit(limit=200) if one.entry.alert]
        assert AuditKind.ROLLOUT_ENDED in alerts
        await made.desk.abort("r-0001", SECOND.actor, revert=True)
        await made.go()
        assert made.orders()["t1"]["command_id"] != first
        await made.report("t1", version="1.0")
        await made.go()
        with pytest.raises(RolloutError, match="gone back"):
            await made.desk.abort("r-0001", SECOND.actor, revert=True)


async def test_going_back_waits_for_windows_unless_at_once(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        window = parse_window("07:00-09:00")
        await made.start(rings=(("only", "tag:ring:test"),), approval=False, window=window)
        await made.install("t1")
        await made.go(2 * 3_600.0)
        await made.report("t1", version="2.0")
        await made.desk.abort("r-0001", SECOND.actor, revert=True)
        await made.go()
        assert (await made.members())["t1"].revert is RevertState.PENDING
        assert made.orders()["t1"]["action"] == "update.install"
        await made.desk.abort("r-0001", SECOND.actor, revert=True, reverts_now=True)
        await made.go()
        assert made.orders()["t1"]["action"] == "update.rollback"


async def test_next_rollout_of_the_name_decides_for_devices_that_were_waited_for(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await rolled_back_without(made, "c2")
        await made.report("c1", version="1.0")
        await made.go(1.0)
        await made.start(rings=(("only", "tag:ring:canary"),), approval=False)
        member = (await made.members())["c2"]
        assert member.revert is RevertState.NOT_REVERTED
        assert "r-0002" in member.reason
        with pytest.raises(RolloutError, match="r-0002 rolls out app"):
            await made.desk.abort("r-0001", SECOND.actor, revert=True)
        await made.status("c2", "online")
        await made.report("c2", version="2.0")
        await made.go()
        assert made.orders()["c2"]["action"] == "update.install"


@pytest.mark.parametrize("phase", ["rolled_back", "declined", "refused"])
@pytest.mark.parametrize("has_restarted", [False, True])
async def test_device_that_denied_the_update_and_has_it_after_the_end_goes_back(
    tmp_path: Path, phase: str, has_restarted: bool
) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rings=(("only", "tag:ring:canary"),), approval=False)
        await made.install("c1")
        await made.tell("c2", "failed", phase, "no good")
        await made.go()
        await made.desk.abort("r-0001", SECOND.actor, revert=True)
        await made.go()
        await made.report("c1", version="1.0")
        await made.go()
        assert (await made.now()).state.is_end
        if not has_restarted:
            await made.report("c2", version="2.0")
            await made.go(DAY)
            assert made.orders()["c2"]["action"] == "update.rollback"
            return
        await made.report("c2", version="2.0")
    async with open_rollouts(tmp_path / "db") as made:
        made.seq = 100
        await made.go(DAY)
        assert made.orders()["c2"]["action"] == "update.rollback"
        await made.report("c2", version="1.0")
        await made.go()
        assert (await made.members())["c2"].revert is RevertState.REVERTED


async def test_next_rollout_of_the_name_decides_for_devices_that_denied_the_update(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rings=(("only", "tag:ring:canary"),), approval=False)
        await made.install("c1")
        await made.fail("c2")
        await made.desk.abort("r-0001", SECOND.actor, revert=True)
        await made.go()
        await made.report("c1", version="1.0")
        await made.go(1.0)
        assert set(made.rollouts.runs) == {"r-0001"}
        await made.start(rings=(("only", "tag:ring:test"),), approval=False)
        assert set(made.rollouts.runs) == {"r-0002"}
        await made.report("c2", version="2.0")
        await made.go()
        assert made.orders()["c2"]["action"] == "update.install"


async def test_an_older_version_is_rolled_out_only_where_it_is_asked_for(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.report("f1", version="3.0")
        with pytest.raises(RolloutError, match=r"1 devices have a newer version than 2\.0 \(3\.0 on f1\)"):
            await made.start()
        assert await made.desk.store.rollouts(limit=5) == []
        rollout = await made.start(allow_downgrade=True)
        assert rollout.remarks == ("1 devices have a newer version than 2.0 (3.0 on f1)",)
        assert (await made.now()).remarks == rollout.remarks
        (entry,) = await made.harness.store.audit(kind=AuditKind.ROLLOUT_STARTED, limit=5)
        assert (entry.entry.detail or {})["remarks"] == list(rollout.remarks)


async def test_a_device_that_got_a_newer_version_meanwhile_is_left_out(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        await made.install("t1")
        await made.report("c1", version="3.0")
        await made.go(61.0)
        assert (await made.members())["c1"].state is MemberState.SKIPPED
        assert set(made.orders()) == {"t1", "c2"}


async def test_versions_without_an_order_are_said(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.report("f1", "f2", version="2024a")
        rollout = await made.start()
        assert rollout.remarks == (
            "2 devices have a version that cannot be ordered against 2.0 (2024a on f1, 2024a on f2)",
        )
