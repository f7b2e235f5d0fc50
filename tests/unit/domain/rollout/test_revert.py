"""How devices go back: when they are heard, in their windows, and when the rollout is asked again."""

from dataclasses import replace

import pytest

from controller.domain.rollout import member, revert
from controller.domain.rollout.lifecycle import abort, advance, withdraw_target
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    MemberTransition,
    RevertState,
    RolloutDevice,
    RolloutError,
    RolloutState,
)
from controller.domain.rollout.revert import GRACE, MAX_ORDERS
from tests.support.rollout_members import (
    DAY,
    DEVICE,
    HOUR,
    NEW,
    NIGHT,
    NOW,
    OLD,
    confirmed,
    first_of,
    in_window,
    ordered,
    reverting,
    rollout_with,
)


def to_revert(*, now: bool = False, window: str = "") -> MemberTransition:
    rollout, device = confirmed(*(in_window(window) if window else first_of(rollout_with(1, 1))))
    return abort(rollout, "operator:a", NOW, revert=True, reverts_now=now)[0], device


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (replace(DEVICE, is_reachable=False), "not connected"),
        (replace(DEVICE, is_isolated=True), "isolated"),
        (replace(DEVICE, is_busy=True), "too many"),
    ],
)
def test_device_that_cannot_be_ordered_back_is_waited_for_after_the_end(view: RolloutDevice, reason: str) -> None:
    rollout, device = revert.schedule(*to_revert(), view, NOW)
    assert device.revert is RevertState.AWAY
    assert reason in device.reason
    rollout, notes = advance(rollout, NOW)
    assert rollout.state is RolloutState.ABORTED
    assert rollout.has_open_reverts
    assert notes[-1].alert
    assert notes[-1].detail["revert_away"] == 1
    assert reverting(rollout, device)[1].revert is RevertState.REVERTING


@pytest.mark.parametrize("is_expired", [True, False])
def test_order_without_an_answer_is_given_again_a_limited_number_of_times(*, is_expired: bool) -> None:
    rollout, device = to_revert()
    for _ in range(MAX_ORDERS - 1):
        rollout, device = reverting(rollout, device)
        if is_expired:
            progress = CommandProgress("c2", "expired", "not begun in time")
            rollout, device = member.on_command_progress(rollout, device, progress, NOW)
        else:
            rollout, device = member.time_out(rollout, device, NOW)
        assert device.revert is RevertState.AWAY
    rollout, device = member.time_out(*reverting(rollout, device), NOW)
    assert device.revert is RevertState.NOT_REVERTED


def test_device_goes_back_in_its_window_unless_at_once() -> None:
    day = NIGHT + 10 * HOUR
    rollout, device = revert.schedule(*to_revert(window="02:00-05:00"), DEVICE, day)
    assert (device.revert, device.not_before) == (RevertState.PENDING, NIGHT + DAY)
    assert advance(rollout, day)[0].state is RolloutState.ROLLING_BACK
    late = NIGHT + 3 * HOUR - 60.0
    assert revert.schedule(rollout, device, DEVICE, late)[1].deadline == late + 60.0 + GRACE
    at_once, device = to_revert(window="02:00-05:00", now=True)
    assert revert.schedule(at_once, device, DEVICE, day)[1].revert is RevertState.REVERTING
    assert revert.schedule(at_once, device, DEVICE, late)[1].deadline == late + 600.0 + GRACE


def test_report_of_another_version_proves_it_in_every_state() -> None:
    rollout, device = to_revert()
    away = revert.schedule(rollout, device, replace(DEVICE, is_reachable=False), NOW)
    refused = revert.on_command_refused(*reverting(rollout, device), "no", NOW)
    for before in (away, reverting(rollout, device), refused):
        assert member.on_report(*before, OLD, NOW)[1].revert is RevertState.REVERTED
        assert member.on_report(*before, NEW, NOW) == before
        assert member.on_report(*before, InstalledVersion(), NOW) == before


def test_device_that_reports_the_version_again_goes_back_again() -> None:
    rollout, device = member.on_report(*reverting(*to_revert()), OLD, NOW)
    assert member.on_report(rollout, device, NEW, NOW)[1].revert is RevertState.AWAY


def test_rollout_can_be_asked_again_while_a_device_has_not_gone_back() -> None:
    rollout, device = revert.on_command_refused(*reverting(*to_revert()), "no", NOW)
    rollout, _ = advance(rollout, NOW)
    assert rollout.state is RolloutState.ABORTED
    again, _ = abort(rollout, "operator:a", NOW, revert=True)
    assert again.state is RolloutState.ROLLING_BACK
    again, device = revert.ask_again(again, device, NOW)
    assert revert.needs_revert(device)
    assert revert.ask_again(again, device, NOW) == (again, device)
    again, _ = member.on_report(*reverting(again, device), OLD, NOW)
    again, _ = advance(again, NOW)
    with pytest.raises(RolloutError, match="gone back"):
        abort(again, "operator:a", NOW, revert=True)


def test_device_that_failed_by_its_own_word_and_has_the_version_goes_back() -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    failed = CommandProgress("c1", "failed", "interrupted", "failed")
    rollout, device = member.on_command_progress(rollout, device, failed, NOW)
    assert not revert.needs_revert(device)
    assert revert.needs_revert(member.on_report(rollout, device, NEW, NOW)[1])


def test_withdrawn_target_stops_a_rollout_and_takes_nobody_back() -> None:
    rollout, _ = confirmed(*first_of(rollout_with(1, 1, rollback_on_error=True)))
    stopped, (note,) = withdraw_target(rollout)
    assert (stopped.state, note.alert) == (RolloutState.ENDING, True)
    assert "withdrawn" in stopped.why
    assert not stopped.is_reverting
    assert withdraw_target(stopped) == (stopped, ())


def test_device_that_never_began_before_its_window_closed_may_have_the_version() -> None:
    rollout, device = in_window()
    late = NIGHT + 3 * HOUR - 60.0
    rollout, device = member.on_command_issued(*member.schedule(rollout, device, DEVICE, OLD, late), "c1", late)
    _, device = member.time_out(rollout, device, device.deadline)
    assert device.state is MemberState.PENDING
    assert revert.needs_revert(device)
