"""What becomes of a rollout and its devices, decision by decision; the property tests have the promises."""

from dataclasses import replace
from typing import Any

import pytest

from controller.domain.rollout import lifecycle as whole
from controller.domain.rollout import member as one
from controller.domain.rollout.lifecycle import APPROVAL_PATIENCE, abort, approve, begin, pause, resume, settle
from controller.domain.rollout.member import GRACE, MAX_AWAY
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    RevertState,
    Rollout,
    RolloutDevice,
    RolloutError,
    RolloutMember,
    RolloutState,
    RolloutTarget,
    RolloutTerms,
)

NOW = 1_800_000_000.0
TARGET = RolloutTarget("app/2.0/app.tar.gz", "app", "2.0", "0" * 64, 10, ("gateway",), ("rpi4",))
HERE = RolloutDevice("t1", "gateway", is_there=True, is_isolated=False, is_busy=False, zone="UTC")
OLD = InstalledVersion(is_known=True, version="1.0", health="ok", device_class="gateway", hardware=("rpi4",))
NEW = replace(OLD, version="2.0", outcome="confirmed", command_id="o1-c0")


def fresh(*sizes: int, **terms: Any) -> tuple[Rollout, list[RolloutMember]]:
    """A rollout whose ring n has devices `rNdM`; terms are short."""
    rings = [(f"r{ring}", [f"r{ring}d{number}" for number in range(size)]) for ring, size in enumerate(sizes)]
    made = RolloutTerms(**{"soak": 60.0, "timeout": 600.0, "min_sample": 2, **terms})
    rollout, members = begin("r-1", TARGET, made, rings, by="operator:a", reason="", now=NOW)
    return rollout, list(members)


def ordered(rollout: Rollout, member: RolloutMember) -> tuple[Rollout, RolloutMember]:
    return one.turn(rollout, member, replace(HERE, device_id=member.device_id), OLD, NOW, "o1")


def confirmed(rollout: Rollout, member: RolloutMember) -> tuple[Rollout, RolloutMember]:
    rollout, member = ordered(rollout, member)
    return one.looked(rollout, member, NEW, NOW)


def told(rollout: Rollout, member: RolloutMember, state: str, phase: str = "") -> tuple[Rollout, RolloutMember]:
    return one.told(rollout, member, CommandProgress(member.command_id, state, "", phase), NOW)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (InstalledVersion(), "nothing of updates"),
        (replace(OLD, device_class="sensor"), "class"),
        (replace(OLD, hardware=("x86",)), "hardware"),
        (NEW, "already"),
    ],
)
def test_who_is_not_meant_is_skipped(found: InstalledVersion, reason: str) -> None:
    rollout, (member, _) = fresh(1, 1)
    rollout, member = one.turn(rollout, member, HERE, found, NOW, "o1")
    assert member.state is MemberState.SKIPPED
    assert reason in member.reason


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (replace(HERE, is_there=False), "not there"),
        (replace(HERE, is_isolated=True), "isolated"),
        (replace(HERE, is_busy=True), "too many"),
    ],
)
def test_who_cannot_be_reached_waits_and_not_for_ever(view: RolloutDevice, reason: str) -> None:
    rollout, (member, _) = fresh(1, 1)
    for _ in range(MAX_AWAY):
        rollout, member = one.turn(rollout, member, view, OLD, NOW, "o1")
        assert member.state is MemberState.AWAY
        assert reason in member.reason
        assert member.deadline == NOW + 600.0
        rollout, member = one.came_back(rollout, member, NOW)
        assert member.state is MemberState.PENDING
    rollout, member = one.turn(rollout, member, view, OLD, NOW, "o1")
    assert member.state is MemberState.UNKNOWN


def test_an_isolated_one_is_skipped_in_the_end() -> None:
    rollout, (member, _) = fresh(1, 1)
    rollout, member = one.turn(rollout, member, replace(HERE, is_isolated=True), OLD, NOW, "o1")
    _, member = one.silent_too_long(rollout, member, NOW)
    assert member.state is MemberState.SKIPPED


def test_an_order_that_is_not_begun() -> None:
    rollout, member = ordered(*_first(fresh(1, 1)))
    assert member.deadline == NOW + 600.0 + GRACE
    _, ended = one.silent_too_long(rollout, member, NOW)
    assert (ended.state, ended.was_received) == (MemberState.UNKNOWN, False)
    assert told(rollout, member, "expired")[1].state is MemberState.UNKNOWN


def _first(made: tuple[Rollout, list[RolloutMember]]) -> tuple[Rollout, RolloutMember]:
    rollout, members = made
    return rollout, members[0]


@pytest.mark.parametrize("end", ["failed", "rejected"])
def test_an_end_that_is_none(end: str) -> None:
    rollout, member = ordered(*_first(fresh(1, 1)))
    rollout, member = told(rollout, member, end)
    assert member.state is MemberState.FAILED
    assert rollout.rings[0].errors == 1
    assert told(rollout, member, "succeeded") == (rollout, member), "an end is an end"


def test_a_word_that_is_not_known_changes_nothing() -> None:
    rollout, member = ordered(*_first(fresh(1, 1)))
    assert told(rollout, member, "dancing") == (rollout, member)
    assert one.told(rollout, member, CommandProgress("another-c0", "failed"), NOW) == (rollout, member)


def test_a_report_of_its_own_end_without_a_result() -> None:
    rollout, member = ordered(*_first(fresh(1, 1)))
    back = replace(OLD, outcome="rolled_back", attempted="2.0", command_id="o1-c0", reason="sick")
    _, member = one.looked(rollout, member, back, NOW)
    assert (member.state, member.reason, member.phase) == (MemberState.FAILED, "sick", "rolled_back")
    assert not one.has_to_go_back(member)


def test_without_a_check_nothing_is_known_of_its_health() -> None:
    rollout, member = ordered(*_first(fresh(1, 1)))
    silent = replace(NEW, health="unknown")
    assert one.looked(rollout, member, silent, NOW)[1].state is MemberState.ORDERED
    unchecked = replace(rollout, target=replace(TARGET, has_check=False))
    assert one.looked(unchecked, member, silent, NOW)[1].state is MemberState.CONFIRMED


def test_afterwards_it_has_another_version() -> None:
    rollout, member = confirmed(*_first(fresh(1, 1)))
    rollout, member = one.looked(rollout, member, OLD, NOW)
    assert member.state is MemberState.FAILED
    assert "afterwards" in member.reason


def test_heard_of_again_after_all() -> None:
    rollout, member = ordered(*_first(fresh(1, 1)))
    rollout, member = one.silent_too_long(rollout, member, NOW)
    assert one.has_to_go_back(member)
    _, member = one.looked(rollout, member, NEW, NOW)
    assert member.state is MemberState.CONFIRMED


def test_the_way_back() -> None:
    rollout, member = confirmed(*_first(fresh(1, 1)))
    rollout, member = one.sent_back(rollout, member, NOW, "b1")
    assert not one.has_to_go_back(member)
    assert one.looked(rollout, member, NEW, NOW)[1].back is RevertState.REVERTING
    back = CommandProgress(member.back_command_id, "failed", "no way")
    assert one.told(rollout, member, back, NOW)[1].back is RevertState.NOT_REVERTED
    assert one.silent_too_long(rollout, member, NOW)[1].back is RevertState.NOT_REVERTED
    rollout, member = one.looked(rollout, member, OLD, NOW)
    assert member.back is RevertState.REVERTED
    assert one.told(rollout, member, back, NOW) == (rollout, member)
    assert (rollout.rings[0].reverting, rollout.rings[0].reverted) == (0, 1)


def test_a_silent_test_device_is_not_green() -> None:
    rollout, member = confirmed(*_first(fresh(1, 1, approval=False)))
    rollout, _ = settle(rollout, NOW)
    assert rollout.state is RolloutState.SOAKING
    rollout, member = one.fell_silent(rollout, member, NOW)
    assert one.fell_silent(rollout, member, NOW) == (rollout, member)
    assert settle(rollout, NOW + 61.0)[0].state is RolloutState.SOAKING
    ended = settle(rollout, NOW + 661.0)[0]
    assert ended.state is RolloutState.STOPPED
    assert "silent" in ended.why
    heard, _ = one.came_back(rollout, member, NOW)
    assert settle(heard, NOW + 61.0)[0].ring == 1


def test_a_ring_in_which_nobody_could_be_updated_proves_nothing() -> None:
    rollout, member = _first(fresh(1, 1))
    rollout, _ = one.turn(rollout, member, HERE, InstalledVersion(), NOW, "o1")
    ended, notes = settle(rollout, NOW)
    assert ended.state is RolloutState.STOPPED
    assert "proves nothing" in ended.why
    assert [note.kind for note in notes] == ["rollout stopped itself", "rollout over"]


def test_nobody_approves() -> None:
    rollout, _ = fresh(1)
    assert rollout.state is RolloutState.AWAITING_APPROVAL
    assert settle(rollout, NOW + 1.0)[0] is rollout
    ended, _ = settle(rollout, NOW + APPROVAL_PATIENCE)
    assert ended.state is RolloutState.STOPPED


def test_decisions_that_do_not_fit() -> None:
    rollout, _ = fresh(1, 1)
    with pytest.raises(RolloutError, match="not paused"):
        resume(rollout, "operator:a")
    with pytest.raises(RolloutError, match="does not wait"):
        approve(rollout, "operator:b", NOW)
    held, _ = pause(rollout, "operator:a")
    assert pause(held, "operator:a") == (held, ())
    over, _ = settle(abort(rollout, "operator:a", revert=False)[0], NOW)
    assert over.state is RolloutState.ABORTED
    with pytest.raises(RolloutError, match="does not go on"):
        pause(over, "operator:a")
    with pytest.raises(RolloutError, match="nothing to abort"):
        abort(over, "operator:a", revert=False)
    assert abort(over, "x", revert=True)[0].state is RolloutState.ROLLING_BACK


@pytest.mark.parametrize(
    ("rings", "words"),
    [
        ([("a", ["x"] * (whole.MAX_MEMBERS + 1))], "at most"),
        ([("a", ["x"]), ("b", [])], "ring b is empty"),
        ([("a", [])], "no device"),
        ([], "no device"),
    ],
)
def test_what_makes_no_rollout(rings: list[tuple[str, list[str]]], words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        begin("r", TARGET, RolloutTerms(), rings, by="", reason="", now=NOW)


def test_a_rate_is_kept_and_not_caught_up_for_long() -> None:
    rollout, _ = fresh(1, 1, per_minute=60.0)
    first = whole.ordered(rollout, NOW)
    assert first.next_order_at == NOW + 1.0
    assert not whole.may_order(first, NOW + 0.5)
    late = whole.ordered(first, NOW + 3600.0)
    assert late.next_order_at == NOW + 3600.0
