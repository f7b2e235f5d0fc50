"""What is unknown is no verdict on an update: unreadable reports, health that is not known, blank hardware."""

from dataclasses import replace

import pytest

from controller.domain.rollout import member, revert
from controller.domain.rollout.lifecycle import advance
from controller.domain.rollout.member import CLOCK_RETRY, MAX_DEFERRALS
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    MemberTransition,
    RevertState,
    Rollout,
    RolloutMember,
    RolloutState,
)
from tests.support.rollout_members import (
    DEVICE,
    NEW,
    NOW,
    OLD,
    confirmed,
    first_of,
    ordered,
    progressed,
    reverting,
    rollout_with,
)

UNREADABLE = InstalledVersion()
ABSENT = InstalledVersion(is_absent=True)
BLANK = replace(OLD, version="", outcome="")


@pytest.mark.parametrize("report", [UNREADABLE, ABSENT])
def test_report_without_readable_section_changes_no_device(report: InstalledVersion) -> None:
    first = first_of(rollout_with(1, 1))
    for rollout, device in (ordered(*first), progressed(*ordered(*first), "succeeded", "confirmed"), confirmed(*first)):
        assert member.on_report(rollout, device, report, NOW) == (rollout, device)


@pytest.mark.parametrize(("report", "end"), [(UNREADABLE, MemberState.UNKNOWN), (ABSENT, MemberState.SKIPPED)])
def test_device_without_readable_section_waits_for_a_report(report: InstalledVersion, end: MemberState) -> None:
    rollout, device = first_of(rollout_with(1, 1))
    rollout, device = member.schedule(rollout, device, DEVICE, report, NOW)
    assert (device.state, device.deadline) == (MemberState.AWAY, NOW + 600.0)
    # That it is connected changes nothing: only what it reports does.
    assert member.on_reachable(rollout, device, NOW) == (rollout, device)
    assert member.on_report(rollout, device, report, NOW) == (rollout, device)
    assert member.time_out(rollout, device, NOW)[1].state is end
    rollout, device = member.on_report(rollout, device, OLD, NOW)
    assert device.state is MemberState.PENDING
    assert member.schedule(rollout, device, DEVICE, OLD, NOW)[1].state is MemberState.ORDERED


def test_unknown_health_of_a_claimed_update_is_no_failure() -> None:
    rollout, device = progressed(*ordered(*first_of(rollout_with(1, 1))), "succeeded", "confirmed")
    rollout, device = member.on_report(rollout, device, replace(NEW, health="unknown"), NOW)
    assert device.state is MemberState.CLAIMED
    assert member.on_report(rollout, device, replace(NEW, health="failed"), NOW)[1].state is MemberState.FAILED
    assert member.on_report(rollout, device, NEW, NOW)[1].state is MemberState.CONFIRMED


def replaced() -> MemberTransition:
    return member.on_report(*confirmed(*first_of(rollout_with(1, 1, approval=False))), BLANK, NOW)


def test_blank_hardware_in_place_of_a_confirmed_device_is_a_new_member() -> None:
    rollout, device = replaced()
    assert (device.state, device.command_id, device.was_received) == (MemberState.PENDING, "", False)
    assert rollout.rings[0].errors == 0
    assert advance(rollout, NOW)[0].state is RolloutState.RUNNING
    rollout, device = confirmed(rollout, device)
    assert device.state is MemberState.CONFIRMED
    # A device that loses the update a second time is no replacement.
    assert member.on_report(rollout, device, BLANK, NOW)[1].state is MemberState.FAILED


def test_soak_of_a_ring_ends_after_the_replacement_was_updated() -> None:
    rollout, device = confirmed(*first_of(rollout_with(1, 1, approval=False)))
    rollout, _ = advance(rollout, NOW)
    rollout, device = member.on_report(rollout, device, BLANK, NOW)
    assert advance(rollout, NOW + 700.0)[0].state is RolloutState.SOAKING
    rollout, device = confirmed(rollout, device)
    assert advance(rollout, NOW + 700.0)[0].ring == 1


def test_ring_whose_only_device_was_replaced_and_never_came_proves_nothing() -> None:
    rollout, device = confirmed(*first_of(rollout_with(1, 1, approval=False)))
    rollout, _ = advance(rollout, NOW)
    rollout, device = member.on_report(rollout, device, BLANK, NOW)
    rollout, device = member.schedule(rollout, device, replace(DEVICE, is_reachable=False), BLANK, NOW)
    rollout, _ = member.time_out(rollout, device, NOW)
    assert "proves nothing" in advance(rollout, NOW + 700.0)[0].why


def test_blank_hardware_in_place_of_a_device_under_way_is_a_new_member() -> None:
    rollout, device = progressed(*ordered(*first_of(rollout_with(1, 1))), "executing", "downloading")
    assert device.previous_version == "1.0"
    assert member.on_report(rollout, device, BLANK, NOW)[1].state is MemberState.PENDING


def test_damaged_version_is_no_blank_hardware() -> None:
    rollout, device = confirmed(*first_of(rollout_with(1, 1)))
    damaged = replace(NEW, version="")
    assert member.on_report(rollout, device, damaged, NOW)[1].state is MemberState.FAILED


def test_devices_that_had_the_version_prove_a_ring_and_those_never_reached_do_not_count() -> None:
    rollout, (had_it, away, *_) = rollout_with(2, 1)
    rollout, had_it = member.schedule(rollout, had_it, DEVICE, NEW, NOW)
    rollout, away = member.schedule(rollout, away, replace(DEVICE, is_reachable=False), OLD, NOW)
    assert advance(rollout, NOW)[0].state is RolloutState.RUNNING
    rollout, away = member.time_out(rollout, away, NOW)
    rollout, (note,) = advance(rollout, NOW)
    assert rollout.state is RolloutState.SOAKING
    assert note.detail == {"ring": "r0", "confirmed": 0, "had_it": 1, "unknown": 1, "errors": 0}


WRONG_CLOCK = (("failed", "refused"), ("failed", "failed"), ("rejected", ""), ("expired", ""))


def with_wrong_clock(rollout: Rollout, device: RolloutMember, state: str, phase: str) -> MemberTransition:
    progress = CommandProgress(device.command_id, state, "it is 1970", phase, reason_code="clock")
    return member.on_command_progress(rollout, device, progress, NOW)


@pytest.mark.parametrize(("state", "phase"), WRONG_CLOCK)
def test_wrong_clock_is_no_failure_and_is_asked_again_a_limited_number_of_times(state: str, phase: str) -> None:
    rollout, device = first_of(rollout_with(1, 1))
    for _ in range(MAX_DEFERRALS):
        rollout, device = with_wrong_clock(*ordered(rollout, device), state, phase)
        assert (device.state, device.deadline) == (MemberState.AWAY, NOW + CLOCK_RETRY)
        assert device.reason == "waits for the time: it is 1970"
        assert (rollout.rings[0].errors, rollout.rings[0].sample) == (0, 0)
        # It is connected all the time, and that its clock is right now is known when it was asked.
        assert member.on_reachable(rollout, device, NOW) == (rollout, device)
        rollout, device = member.time_out(rollout, device, NOW + CLOCK_RETRY)
        assert device.state is MemberState.PENDING
    rollout, device = with_wrong_clock(*ordered(rollout, device), state, phase)
    assert (device.state, rollout.rings[0].errors) == (MemberState.UNKNOWN, 0)
    assert "its clock was wrong 16 times" in device.reason


def test_update_that_was_rolled_back_is_a_failure_whatever_the_clock() -> None:
    rollout, device = with_wrong_clock(*ordered(*first_of(rollout_with(1, 1))), "failed", "rolled_back")
    assert (device.state, rollout.rings[0].errors) == (MemberState.FAILED, 1)


def test_wrong_clock_does_not_end_the_way_back() -> None:
    rollout, device = reverting(*confirmed(*first_of(rollout_with(1, 1))))
    progress = CommandProgress(device.revert_command_id, "rejected", "it is 1970", reason_code="clock")
    rollout, device = member.on_command_progress(rollout, device, progress, NOW)
    assert device.revert is RevertState.REVERTING
    assert revert.time_out(rollout, device, device.deadline)[1].revert is RevertState.AWAY
