"""Rollouts on a real store: orders by signed commands, proof by reports, and a controller that ends in the middle."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from controller.adapters.sql.rollouts import SqlRolloutStore
from controller.domain.audit_kinds import AuditKind
from controller.domain.events import ContainmentOrdered
from controller.domain.policy.model import ContainmentLevel
from controller.domain.rollout.model import (
    MemberState,
    RevertState,
    Rollout,
    RolloutError,
    RolloutMember,
    RolloutState,
    RolloutTerms,
)
from controller.domain.rollout.rings import parse_ring
from controller.ports.errors import StoreError
from controller.ports.store import StoreWrites
from controller.service.rollout.operations import RolloutRequest
from tests.support.controller_harness import START
from tests.support.fleet_devices import devices_of
from tests.support.rollouts import BY, RINGS, SECOND, open_rollouts, seed_devices


async def test_through_three_rings(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        assert set(made.orders()) == {"t1"}
        order = made.orders()["t1"]
        assert order["action"] == "update.install"
        assert order["params"]["target"] == "app/2.0/app.tar.gz"
        assert order["params"]["rollout"] == "r-0001"
        await made.install("t1")
        assert (await made.now()).state is RolloutState.SOAKING
        await made.go(59.0)
        assert set(made.orders()) == {"t1"}
        await made.go(2.0)
        assert set(made.orders()) == {"t1", "c1", "c2"}
        await made.install("c1", "c2")
        await made.go(61.0)
        assert (await made.now()).state is RolloutState.AWAITING_APPROVAL
        with pytest.raises(RolloutError, match="second operator"):
            await made.desk.approve("r-0001", BY)
        await made.desk.approve("r-0001", SECOND)
        await made.go()
        # No more at once than the sample that shows whether it works.
        assert len(made.orders()) == 5
        await made.install(*(set(made.orders()) - {"t1", "c1", "c2"}))
        await made.install(*(set(made.orders()) - {"t1", "c1", "c2"}))
        rollout = await made.now()
        assert rollout.state is RolloutState.COMPLETED
        assert [ring.confirmed for ring in rollout.rings] == [1, 2, 3]
        kinds = [one.entry.kind for one in await made.harness.store.audit(limit=200, newest_first=False)]
        assert [kind for kind in kinds if kind.startswith("rollout")] == [
            AuditKind.ROLLOUT_STARTED,
            AuditKind.ROLLOUT_RING_COMPLETED,
            AuditKind.ROLLOUT_RING_OPENED,
            AuditKind.ROLLOUT_RING_COMPLETED,
            AuditKind.ROLLOUT_APPROVAL_REQUESTED,
            AuditKind.ROLLOUT_APPROVED,
            AuditKind.ROLLOUT_RING_OPENED,
            AuditKind.ROLLOUT_RING_COMPLETED,
            AuditKind.ROLLOUT_COMPLETED,
        ]


async def test_its_word_is_not_enough(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        await made.tell("t1", "succeeded", "confirmed")
        await made.go()
        assert (await made.members())["t1"].state is MemberState.CLAIMED
        command_id = made.orders()["t1"]["command_id"]
        await made.report("t1", version="2.0", attempted="2.0", command_id=command_id, health="failed")
        await made.go()
        assert (await made.members())["t1"].state is MemberState.FAILED
        assert (await made.now()).state is RolloutState.STOPPED


async def test_a_failure_in_the_test_ring_stops_it(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(error_threshold=1.0)
        await made.fail("t1")
        rollout = await made.now()
        assert rollout.state is RolloutState.STOPPED
        assert "none may" in rollout.why
        assert set(made.orders()) == {"t1"}


async def test_it_stops_itself_in_the_canary_ring_and_rolls_back(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rollback_on_error=True)
        await made.install("t1")
        await made.go(61.0)
        await made.fail("c1", "c2")
        rollout = await made.now()
        assert rollout.state is RolloutState.ROLLING_BACK
        assert made.orders()["t1"]["action"] == "update.rollback"
        assert made.orders()["t1"]["params"] == {"name": "app", "version": "2.0", "rollout": "r-0001"}
        # Those that went back by themselves need no order.
        assert made.orders()["c1"]["action"] == "update.install"
        await made.tell("t1", "succeeded", "rolled_back")
        await made.go()
        assert (await made.members())["t1"].revert is RevertState.REVERTING
        await made.report("t1", version="1.0")
        await made.go()
        assert (await made.members())["t1"].revert is RevertState.REVERTED
        assert (await made.now()).state is RolloutState.STOPPED
        assert "f1" not in made.orders()


async def test_a_regression_after_the_update_counts(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        await made.install("t1")
        await made.report("t1", version="2.0", health="failed")
        await made.go()
        assert (await made.now()).state is RolloutState.STOPPED


async def test_a_silent_device_holds_nothing_open(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.status("c2", "offline")
        await made.start()
        await made.install("t1")
        await made.go(61.0)
        assert "c2" not in made.orders()
        assert (await made.members())["c2"].state is MemberState.AWAY
        await made.install("c1")
        await made.go(601.0)
        assert (await made.members())["c2"].state is MemberState.UNKNOWN
        rollout = await made.now()
        assert rollout.state is RolloutState.SOAKING
        assert rollout.rings[1].errors == 0


async def test_silent_with_the_update_in_hand_is_an_error(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        await made.tell("t1", "executing", "installed")
        await made.go(700.0)
        member = (await made.members())["t1"]
        assert member.state is MemberState.UNKNOWN
        assert member.was_received
        assert (await made.now()).rings[0].lost == 1
        assert (await made.now()).state is RolloutState.STOPPED


async def test_a_device_that_comes_back_gets_its_turn(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.status("t1", "offline")
        await made.start()
        assert made.orders() == {}
        await made.status("t1", "online")
        await made.go()
        assert set(made.orders()) == {"t1"}


async def test_restricted_devices_get_it_isolated_ones_do_not(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        state = made.harness.fleet
        await state.apply_and_commit(
            "c1", ContainmentOrdered("x1", ContainmentLevel.RESTRICTED, "operator:x", "test", None)
        )
        await state.apply_and_commit("c2", ContainmentOrdered("x2", ContainmentLevel.ISOLATED, BY.actor, "test", None))
        await made.start()
        await made.install("t1")
        await made.go(61.0)
        assert set(made.orders()) == {"t1", "c1"}
        await made.install("c1")
        await made.go(700.0)
        assert (await made.members())["c2"].state is MemberState.SKIPPED


async def test_an_order_not_begun_is_taken_back_at_the_end(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        assert devices_of(made.harness.fleet)["t1"].commands
        await made.desk.abort("r-0001", BY.actor, revert=False)
        await made.go()
        assert (await made.now()).state is RolloutState.ABORTED
        assert not devices_of(made.harness.fleet)["t1"].commands
        sent = len(made.harness.link.sent)
        await made.status("t1", "online")
        await made.go()
        assert len(made.harness.link.sent) == sent


async def test_pause_orders_nothing(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        await made.install("t1")
        await made.desk.pause("r-0001", BY.actor)
        await made.go(120.0)
        assert set(made.orders()) == {"t1"}
        await made.desk.resume("r-0001", BY.actor)
        await made.go()
        assert set(made.orders()) == {"t1", "c1", "c2"}


async def test_a_rollout_that_completed_can_be_rolled_back(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rings=(("only", "tag:ring:test"),), approval=False)
        await made.install("t1")
        assert (await made.now()).state is RolloutState.COMPLETED
        await made.desk.abort("r-0001", SECOND.actor, revert=True)
        await made.go()
        assert made.orders()["t1"]["action"] == "update.rollback"
        await made.report("t1", version="1.0")
        await made.go()
        assert (await made.now()).state is RolloutState.ABORTED


async def test_who_has_it_needs_nothing(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.report("t1", version="2.0")
        await made.start()
        assert made.orders() == {}
        rollout = await made.now()
        assert rollout.rings[0].had_it == 1
        assert rollout.state is RolloutState.SOAKING


async def test_a_person_agrees_where_the_class_asks(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db", confirm_classes=("kiosk",)) as made:
        await seed_devices(made)
        await made.label("t1", "ring:test", device_class="kiosk")
        await made.start(confirm_classes=("kiosk",))
        assert made.orders()["t1"]["params"]["ask_user"] is True
        await made.tell("t1", "executing", "waiting")
        await made.tell("t1", "failed", "declined", "the user said no")
        await made.go()
        assert (await made.members())["t1"].state is MemberState.DECLINED
        assert (await made.now()).rings[0].errors == 0


@pytest.mark.parametrize("rings", [(("none", "tag:nobody"),), (("test", "tag:ring:test"), ("none", "tag:nobody"))])
async def test_an_empty_ring_is_an_error(tmp_path: Path, rings: tuple[tuple[str, str], ...]) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        with pytest.raises(RolloutError, match=r"empty|no device"):
            await made.start(rings=rings)


async def test_only_one_at_a_time_for_a_name(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        with pytest.raises(RolloutError, match="r-0001 rolls out app"):
            await made.start()


async def test_a_killed_controller_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed after each step, with what devices said in between heard by nobody but the store."""
    path = tmp_path / "db"
    async with open_rollouts(path) as made:
        await seed_devices(made)
        await made.start()
        first = made.orders()["t1"]["command_id"]
    async with open_rollouts(path) as made:
        made.seq = 100
        await made.status("t1", "online")
        await made.go(1.0)
        assert made.orders()["t1"]["command_id"] == first, "the same order, not a second one"
        # Its result and its report are kept, and the process ends before the rollout hears of them.
        await made.tell("t1", "succeeded", "confirmed")
        await made.report("t1", version="2.0", attempted="2.0", command_id=first)
    async with open_rollouts(path) as made:
        made.harness.clock.at = START + 10
        await made.go()
        assert (await made.now()).state is RolloutState.SOAKING
        assert (await made.members())["t1"].state is MemberState.CONFIRMED
    async with open_rollouts(path) as made:
        made.seq = 200
        made.harness.clock.at = START + 100
        await made.go()
        assert {"c1", "c2"} <= set(made.orders())


async def test_order_and_state_are_kept_together(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start()
        member = (await made.members())["t1"]
        record = await made.harness.store.command(member.command_id)
        assert record is not None
        assert record.by == "rollout:r-0001"
        assert member.state is MemberState.ORDERED


async def test_a_rate_spreads_orders(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rings=(("all", "rest"),), per_minute=60.0, min_sample=10, approval=False)
        assert 1 <= len(made.orders()) <= 2
        for _ in range(2):
            await made.go(1.0)
        assert len(made.orders()) <= 4
        for _ in range(4):
            await made.go(1.0)
        assert len(made.orders()) == 6


async def test_the_fleet_alone_needs_a_second_operator_first(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        await made.start(rings=(("all", "rest"),))
        await made.go(10.0)
        assert made.orders() == {}
        assert (await made.now()).state is RolloutState.AWAITING_APPROVAL
        await made.desk.approve("r-0001", SECOND)
        await made.go()
        assert len(made.orders()) == 2


class RefusesOnce(SqlRolloutStore):
    """A store of rollouts that cannot take the first thing."""

    refusals = 1

    async def keep(self, rollout: Rollout, members: Sequence[RolloutMember], writes: StoreWrites) -> None:
        """Not the first time."""
        if self.refusals:
            self.refusals -= 1
            raise StoreError("too much waits")
        await super().keep(rollout, members, writes)


async def test_what_was_not_kept_is_decided_again(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db") as made:
        await seed_devices(made)
        made.rollouts.store = RefusesOnce(made.harness.store)
        asked = RolloutRequest("app/2.0", tuple(parse_ring(*ring) for ring in RINGS), RolloutTerms(), BY.actor)
        await made.desk.start(asked)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(made.rollouts.run(), name="rollouts")
            while True:
                if (await made.members())["t1"].state is MemberState.ORDERED:
                    break
                await asyncio.sleep(0.01)
            # What is stored can be read before the pass that stored it has handed the order to the outbox.
            async with made.rollouts.lock:
                running.cancel()
        await made.harness.drain()
        assert set(made.orders()) == {"t1"}
        member = (await made.members())["t1"]
        assert made.orders()["t1"]["command_id"] == member.command_id
