"""Time in rollouts: windows before presence, pauses, orders that end with their window, leaps of the clock."""

from dataclasses import replace

from controller.domain.rollout import lifecycle, member
from controller.domain.rollout.lifecycle import APPROVAL_TIMEOUT, advance, pause, resume
from controller.domain.rollout.member import GRACE, MAX_DEFERRALS
from controller.domain.rollout.model import CommandProgress, MemberState, RolloutState
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
    progressed,
    rollout_with,
)

AWAY = replace(DEVICE, is_reachable=False)


def test_absence_is_not_judged_while_the_window_is_closed() -> None:
    rollout, device = in_window()
    rollout, device = member.schedule(rollout, device, AWAY, OLD, NIGHT + 14 * HOUR)
    assert (device.state, device.not_before, device.deadline) == (MemberState.PENDING, NIGHT + DAY, 0.0)
    rollout, device = member.schedule(rollout, device, AWAY, OLD, NIGHT + DAY)
    assert (device.state, device.deadline) == (MemberState.AWAY, NIGHT + DAY + 600.0)


def test_device_that_was_away_for_a_short_rest_of_its_window_is_looked_for_in_the_next() -> None:
    rollout, device = in_window()
    late = NIGHT + 3 * HOUR - 60.0
    rollout, device = member.schedule(rollout, device, AWAY, OLD, late)
    assert device.deadline == late + 60.0
    rollout, device = member.time_out(rollout, device, late + 60.0)
    assert device.state is MemberState.PENDING
    rollout, device = member.schedule(rollout, device, AWAY, OLD, late + 60.0)
    assert device.not_before == NIGHT + DAY
    rollout, device = member.schedule(rollout, device, AWAY, OLD, NIGHT + DAY)
    # A minute of its time has passed already.
    assert device.deadline == NIGHT + DAY + 540.0
    assert member.time_out(rollout, device, NIGHT + DAY + 540.0)[1].state is MemberState.UNKNOWN


def test_order_ends_with_its_window() -> None:
    rollout, device = in_window()
    late = NIGHT + 3 * HOUR - 60.0
    assert member.order_end(rollout, "UTC", late) == NIGHT + 3 * HOUR
    assert member.order_end(rollout, "UTC", NIGHT) == NIGHT + 600.0
    rollout, device = member.schedule(rollout, device, DEVICE, OLD, late)
    assert device.deadline == late + 60.0 + GRACE
    rollout, device = member.on_command_issued(rollout, device, "c1", late)
    waiting = member.time_out(rollout, device, device.deadline)[1]
    assert (waiting.state, rollout.rings[0].errors) == (MemberState.PENDING, 0)
    # It was not heard to begin, and may have begun all the same.
    assert member.schedule(rollout, waiting, DEVICE, NEW, NIGHT + DAY)[1].state is MemberState.CONFIRMED


def test_device_that_gave_up_because_its_window_closed_is_no_error() -> None:
    rollout, device = in_window()
    late = NIGHT + 3 * HOUR - 60.0
    given_up = CommandProgress("c1", "failed", "the deadline has passed", "refused", reason_code="deadline")
    for _ in range(MAX_DEFERRALS):
        rollout, device = member.on_command_issued(*member.schedule(rollout, device, DEVICE, OLD, late), "c1", late)
        rollout, device = member.on_command_progress(rollout, device, given_up, late)
        assert device.state is MemberState.PENDING
    rollout, device = member.on_command_issued(*member.schedule(rollout, device, DEVICE, OLD, late), "c1", late)
    assert member.on_command_progress(rollout, device, given_up, late)[1].state is MemberState.UNKNOWN
    rolled_back = replace(given_up, phase="rolled_back")
    assert member.on_command_progress(rollout, device, rolled_back, late)[1].state is MemberState.FAILED
    assert rollout.rings[0].errors == 0


def test_own_deadline_in_the_middle_of_a_window_is_an_error() -> None:
    rollout, device = ordered(*in_window("00:00-23:59"))
    given_up = CommandProgress("c1", "failed", "the deadline has passed", "refused", reason_code="deadline")
    assert member.on_command_progress(rollout, device, given_up, NOW)[1].state is MemberState.FAILED


def test_paused_rollout_is_not_stopped_and_its_time_stands_still() -> None:
    rollout, device = first_of(rollout_with(1, 1))
    rollout, device = member.schedule(rollout, device, AWAY, OLD, NOW)
    paused, _ = pause(rollout, "operator:a", NOW + 10.0)
    assert paused.time(NOW + DAY) == NOW + 10.0
    ended, _ = member.time_out(paused, device, NOW)
    assert advance(ended, NOW + DAY) == (ended, ())
    resumed, _ = resume(paused, "operator:a", NOW + DAY)
    assert resumed.time(NOW + DAY) == NOW + 10.0
    assert resumed.time(NOW + DAY + 590.0) == device.deadline


def test_errors_during_a_pause_stop_the_rollout_when_it_is_resumed() -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    rollout, _ = pause(rollout, "operator:a", NOW)
    rollout, _ = progressed(rollout, device, "failed")
    assert advance(rollout, NOW) == (rollout, ())
    resumed, _ = resume(rollout, "operator:a", NOW)
    assert advance(resumed, NOW)[0].state is RolloutState.STOPPED


def test_order_that_expires_during_a_pause_is_decided_afterwards() -> None:
    rollout, device = progressed(*ordered(*first_of(rollout_with(1, 1))), "executing", "downloading")
    paused, _ = pause(rollout, "operator:a", NOW)
    assert progressed(paused, device, "expired") == (paused, device)
    assert progressed(rollout, device, "expired")[1].state is MemberState.UNKNOWN


def test_approval_does_not_time_out_during_a_pause() -> None:
    rollout, _ = rollout_with(1)
    paused, _ = pause(rollout, "operator:a", NOW)
    assert advance(paused, NOW + 2 * APPROVAL_TIMEOUT) == (paused, ())
    resumed, _ = resume(paused, "operator:a", NOW + 2 * APPROVAL_TIMEOUT)
    assert advance(resumed, NOW + 2 * APPROVAL_TIMEOUT) == (resumed, ())


def test_soak_time_goes_on_during_a_pause_and_its_deadline_does_not() -> None:
    rollout, device = confirmed(*first_of(rollout_with(1, 1, approval=False)))
    rollout, _ = advance(rollout, NOW)
    rollout, device = member.on_stale(rollout, device, NOW)
    rollout, _ = pause(rollout, "operator:a", NOW)
    rollout, _ = resume(rollout, "operator:a", NOW + DAY)
    # The soak time of a minute is over, the device still has its timeout.
    assert advance(rollout, NOW + DAY)[0].state is RolloutState.SOAKING
    assert advance(rollout, NOW + DAY + 600.0)[0].state is RolloutState.STOPPED
    heard, _ = member.on_reachable(rollout, device, NOW + DAY)
    assert advance(heard, NOW + DAY)[0].ring == 1


def test_leap_of_the_clock_moves_neither_soak_time_nor_deadlines() -> None:
    rollout, _ = confirmed(*first_of(rollout_with(1, 1, approval=False)))
    rollout, _ = advance(rollout, NOW)
    for leap in (DAY, -DAY):
        after, (note,) = lifecycle.on_clock_leap(rollout, leap)
        assert note.detail == {"seconds": leap}
        assert advance(after, NOW + leap + 59.0)[0].state is RolloutState.SOAKING
        assert advance(after, NOW + leap + 61.0)[0].ring == 1
    paused, _ = lifecycle.on_clock_leap(pause(rollout, "operator:a", NOW + 10.0)[0], DAY)
    assert paused.time(NOW + DAY + 500.0) == NOW + 10.0


def test_small_correction_of_the_clock_is_followed_without_a_note() -> None:
    rollout, _ = rollout_with(1, 1)
    after, notes = lifecycle.on_clock_leap(rollout, 5.0)
    assert (after.time(NOW + 5.0), notes) == (NOW, ())


def test_soak_time_over_a_restart_is_marked() -> None:
    rollout, _ = confirmed(*first_of(rollout_with(1, 1, approval=False)))
    assert lifecycle.on_restart(rollout) is rollout
    rollout = lifecycle.on_restart(advance(rollout, NOW)[0])
    _, (note,) = advance(rollout, NOW + 61.0)
    assert "wall clock" in str(note.detail["soak_time"])
