"""Rollouts that policies start: for the devices that need them, tested first, one at a time."""

from pathlib import Path

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import PolicySet, RuleResponse
from controller.domain.rollout.model import RolloutState
from tests.support.playbook import policies, rule
from tests.support.reports import full, incoming
from tests.support.rollouts import RolloutHarness, open_rollouts, seed_devices, software


def asks_for_it() -> PolicySet:
    """A rule that fails while telnet listens, and names the app's update."""
    return policies(rule("app-current", RuleResponse(rollout="app/2.0"), check="!listening_ports.exists(p, p == 23)"))


async def vulnerable(made: RolloutHarness, *device_ids: str) -> None:
    """Devices for which the rule fails."""
    for device_id in device_ids:
        made.seq += 1
        body = full(device_id, made.seq, 23, software=software("1.0"))
        await made.harness.ingest.process_batch([incoming(device_id, body)])


async def test_a_policy_starts_one_for_those_that_need_it(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db", asks_for_it(), approval=False, soak="60s") as made:
        await seed_devices(made)
        await vulnerable(made, "t1", "c1", "f1")
        by_rules = made.by_rules()
        await by_rules.run_once()
        await by_rules.run_once()
        rollouts = await made.desk.store.rollouts(limit=10)
        assert [one.rule for one in rollouts] == ["p/app-current"]
        assert set(await made.members()) == {"t1", "c1", "f1"}
        await made.go()
        await made.install("t1")
        await made.go(61.0)
        await made.install("c1")
        await made.go(61.0)
        await made.install("f1")
        assert (await made.now()).state is RolloutState.COMPLETED
        # It did not mend the rule on these: no second one for them.
        await vulnerable(made, "t1", "c1", "f1")
        await by_rules.run_once()
        assert len(await made.desk.store.rollouts(limit=10)) == 1
        # For another device there is one, and rings in which nothing fails are left out: they have been passed.
        await vulnerable(made, "f2")
        await by_rules.run_once()
        assert [ring.name for ring in (await made.now("r-0002")).rings] == ["fleet"]


async def test_a_policy_starts_nothing_untested(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db", asks_for_it(), approval=False) as made:
        await seed_devices(made)
        await vulnerable(made, "f1")
        by_rules = made.by_rules()
        await by_rules.run_once()
        await by_rules.run_once()
        assert await made.desk.store.rollouts(limit=10) == []
        lines = await made.harness.store.audit(kind=AuditKind.ROLLOUT_START_REFUSED, limit=10)
        assert len(lines) == 1
        assert lines[0].entry.alert
        assert "ring test is empty" in str((lines[0].entry.detail or {})["why"])


async def test_after_one_that_stopped_no_policy_starts_it_again(tmp_path: Path) -> None:
    async with open_rollouts(tmp_path / "db", asks_for_it(), approval=False) as made:
        await seed_devices(made)
        await vulnerable(made, "t1", "c1", "f1")
        by_rules = made.by_rules()
        await by_rules.run_once()
        await made.go()
        await made.fail("t1")
        assert (await made.now()).state is RolloutState.STOPPED
        await vulnerable(made, "f2")
        await by_rules.run_once()
        assert len(await made.desk.store.rollouts(limit=10)) == 1
