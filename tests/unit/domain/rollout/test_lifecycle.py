"""Transitions of a rollout and of its devices; the invariants are in tests/property/test_rollout.py."""

from dataclasses import replace

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.rollout import lifecycle, member, revert
from controller.domain.rollout.lifecycle import APPROVAL_TIMEOUT, abort, advance, approve, begin, pause, resume
from controller.domain.rollout.member import GRACE, MAX_DEFERRALS
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    RevertState,
    RolloutDevice,
    RolloutError,
    RolloutState,
    RolloutTerms,
)
from tests.support.persons import person
from tests.support.rollout_members import (
    DEVICE,
    NEW,
    NOW,
    OLD,
    TARGET,
    confirmed,
    first_of,
    ordered,
    progressed,
    reverting,
    rollout_with,
)


@pytest.mark.parametrize(
    ("installed", "reason"),
    [
        (replace(OLD, device_class="sensor"), "class"),
        (replace(OLD, hardware=("x86",)), "hardware"),
        (NEW, "already"),
    ],
)
def test_ineligible_device_is_skipped(installed: InstalledVersion, reason: str) -> None:
    rollout, (device, _) = rollout_with(1, 1)
    rollout, device = member.schedule(rollout, device, DEVICE, installed, NOW)
    assert device.state is MemberState.SKIPPED
    assert reason in device.reason


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (replace(DEVICE, is_reachable=False), "not connected"),
        (replace(DEVICE, is_isolated=True), "isolated"),
        (replace(DEVICE, is_busy=True), "too many"),
    ],
)
def test_unavailable_device_is_deferred_a_limited_number_of_times(view: RolloutDevice, reason: str) -> None:
    rollout, (device, _) = rollout_with(1, 1)
    for _ in range(MAX_DEFERRALS):
        rollout, device = member.schedule(rollout, device, view, OLD, NOW)
        assert device.state is MemberState.AWAY
        assert reason in device.reason
        assert device.deadline == NOW + 600.0
        rollout, device = member.on_reachable(rollout, device, NOW)
        assert device.state is MemberState.PENDING
    rollout, device = member.schedule(rollout, device, view, OLD, NOW)
    assert device.state is MemberState.UNKNOWN


def test_isolated_device_is_skipped_after_its_timeout() -> None:
    rollout, (device, _) = rollout_with(1, 1)
    rollout, device = member.schedule(rollout, device, replace(DEVICE, is_isolated=True), OLD, NOW)
    _, device = member.time_out(rollout, device, NOW)
    assert device.state is MemberState.SKIPPED


def test_command_that_is_not_begun_ends_as_unknown() -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    assert device.deadline == NOW + 600.0 + GRACE
    _, ended = member.time_out(rollout, device, NOW)
    assert (ended.state, ended.was_received) == (MemberState.UNKNOWN, False)
    assert progressed(rollout, device, "expired")[1].state is MemberState.UNKNOWN


def test_command_that_is_not_issued_is_an_error() -> None:
    rollout, device = first_of(rollout_with(1, 1))
    rollout, device = member.schedule(rollout, device, DEVICE, OLD, NOW)
    rollout, device = member.on_command_refused(rollout, device, "not issued", NOW)
    assert (device.state, device.reason, device.command_id) == (MemberState.FAILED, "not issued", "")
    assert rollout.rings[0].errors == 1
    assert not revert.needs_revert(device), "a device without a command has nothing to revert"


@pytest.mark.parametrize("end", ["failed", "rejected"])
def test_failure_is_final(end: str) -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    rollout, device = progressed(rollout, device, end)
    assert device.state is MemberState.FAILED
    assert rollout.rings[0].errors == 1
    assert progressed(rollout, device, "succeeded") == (rollout, device)


def test_unknown_command_state_and_foreign_command_change_nothing() -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    assert progressed(rollout, device, "dancing") == (rollout, device)
    foreign = CommandProgress("another", "failed")
    assert member.on_command_progress(rollout, device, foreign, NOW) == (rollout, device)


def test_report_of_a_rolled_back_update_fails_the_device_without_a_command_result() -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    rolled_back = replace(OLD, outcome="rolled_back", attempted="2.0", command_id="c1", reason="sick")
    _, device = member.on_report(rollout, device, rolled_back, NOW)
    assert (device.state, device.reason, device.phase) == (MemberState.FAILED, "sick", "rolled_back")
    assert not revert.needs_revert(device)


def test_unknown_health_confirms_only_a_target_without_a_health_check() -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    unknown_health = replace(NEW, health="unknown")
    assert member.on_report(rollout, device, unknown_health, NOW)[1].state is MemberState.ORDERED
    unchecked = replace(rollout, target=replace(TARGET, has_health_check=False))
    assert member.on_report(unchecked, device, unknown_health, NOW)[1].state is MemberState.CONFIRMED


def test_confirmed_device_that_later_reports_another_version_fails() -> None:
    rollout, device = confirmed(*first_of(rollout_with(1, 1)))
    rollout, device = member.on_report(rollout, device, OLD, NOW)
    assert device.state is MemberState.FAILED
    assert "after the update" in device.reason


def test_late_report_confirms_a_device_that_timed_out() -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    rollout, device = member.time_out(rollout, device, NOW)
    assert revert.needs_revert(device)
    _, device = member.on_report(rollout, device, NEW, NOW)
    assert device.state is MemberState.CONFIRMED


def test_revert_ends_with_a_report_of_the_previous_version_or_a_refusal() -> None:
    rollout, device = reverting(*confirmed(*first_of(rollout_with(1, 1))))
    assert (device.command_id, device.revert_command_id) == ("c1", "c2")
    assert not revert.needs_revert(device)
    assert member.on_report(rollout, device, NEW, NOW)[1].revert is RevertState.REVERTING
    assert member.on_report(rollout, device, InstalledVersion(), NOW)[1].revert is RevertState.REVERTING
    for end in ("failed", "rejected"):
        refused = CommandProgress("c2", end, "no way")
        assert member.on_command_progress(rollout, device, refused, NOW)[1].revert is RevertState.NOT_REVERTED
    assert revert.on_command_refused(rollout, device, "not issued", NOW)[1].revert is RevertState.NOT_REVERTED
    rollout, device = member.on_report(rollout, device, OLD, NOW)
    assert device.revert is RevertState.REVERTED
    assert member.on_command_progress(rollout, device, CommandProgress("c2", "failed"), NOW) == (rollout, device)
    assert (rollout.rings[0].reverting, rollout.rings[0].reverted) == (0, 1)


def test_stale_device_in_the_first_ring_stops_the_rollout_after_the_soak_and_a_timeout() -> None:
    rollout, device = confirmed(*first_of(rollout_with(1, 1, approval=False)))
    rollout, _ = advance(rollout, NOW)
    assert rollout.state is RolloutState.SOAKING
    rollout, device = member.on_stale(rollout, device, NOW)
    assert member.on_stale(rollout, device, NOW) == (rollout, device)
    assert advance(rollout, NOW + 61.0)[0].state is RolloutState.SOAKING
    ended = advance(rollout, NOW + 661.0)[0]
    assert ended.state is RolloutState.STOPPED
    assert "silent" in ended.why
    reachable, _ = member.on_reachable(rollout, device, NOW)
    assert advance(reachable, NOW + 61.0)[0].ring == 1


def test_ring_in_which_no_device_could_be_updated_stops_the_rollout() -> None:
    rollout, device = first_of(rollout_with(1, 1))
    rollout, _ = member.schedule(rollout, device, DEVICE, replace(OLD, device_class="sensor"), NOW)
    ended, notes = advance(rollout, NOW)
    assert ended.state is RolloutState.STOPPED
    assert "proves nothing" in ended.why
    assert [note.kind for note in notes] == [AuditKind.ROLLOUT_STOPPED, AuditKind.ROLLOUT_ENDED]


def test_missing_approval_stops_the_rollout() -> None:
    rollout, _ = rollout_with(1)
    assert rollout.state is RolloutState.AWAITING_APPROVAL
    assert advance(rollout, NOW + 1.0)[0] is rollout
    ended, _ = advance(rollout, NOW + APPROVAL_TIMEOUT)
    assert ended.state is RolloutState.STOPPED


def test_approval_is_asked_before_the_first_ring_that_is_no_test_ring() -> None:
    rings = [("test", ["d-0"]), ("a", ["d-1", "d-2"]), ("b", ["d-3"])]
    for trial, before in ((0, 0), (1, 1), (2, 2), (3, 2)):
        rollout, _ = begin("r", TARGET, RolloutTerms(), rings, by="x", reason="", now=NOW, trial_rings=trial)
        assert rollout.unapproved_rings == before
        assert (rollout.state is RolloutState.AWAITING_APPROVAL) is (before == 0)
    assert begin("r", TARGET, RolloutTerms(), rings[:1], by="x", reason="", now=NOW, trial_rings=1)[0].ring == 0


def test_requests_that_do_not_fit_the_state_are_refused() -> None:
    rollout, _ = rollout_with(1, 1)
    with pytest.raises(RolloutError, match="not paused"):
        resume(rollout, "operator:a", NOW)
    with pytest.raises(RolloutError, match="does not await"):
        approve(rollout, person("b"), NOW)
    paused, _ = pause(rollout, "operator:a", NOW)
    assert pause(paused, "operator:a", NOW) == (paused, ())
    ended, _ = advance(abort(rollout, "operator:a", NOW, revert=False)[0], NOW)
    assert ended.state is RolloutState.ABORTED
    with pytest.raises(RolloutError, match="only an active rollout"):
        pause(ended, "operator:a", NOW)
    with pytest.raises(RolloutError, match="nothing to abort"):
        abort(ended, "operator:a", NOW, revert=False)
    assert abort(ended, "x", NOW, revert=True)[0].state is RolloutState.ROLLING_BACK


@pytest.mark.parametrize(
    ("rings", "message"),
    [
        ([("a", ["x"] * (lifecycle.MAX_MEMBERS + 1))], "at most"),
        ([("a", ["x"]), ("b", [])], "ring b is empty"),
        ([("a", [])], "no device"),
        ([], "no device"),
    ],
)
def test_rollout_needs_devices_in_each_ring_and_not_too_many(rings: list[tuple[str, list[str]]], message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        begin("r", TARGET, RolloutTerms(), rings, by="", reason="", now=NOW)


def test_rate_limit_catches_up_at_most_one_second() -> None:
    rollout, _ = rollout_with(1, 1, per_minute=60.0)
    first = lifecycle.with_command_issued(rollout, NOW)
    assert first.next_command_at == NOW + 1.0
    assert not lifecycle.may_issue_command(first, NOW + 0.5)
    late = lifecycle.with_command_issued(first, NOW + 3600.0)
    assert late.next_command_at == NOW + 3600.0
