"""Computes the next state of one device of a rollout, together with the tally of its ring. Pure.

How a device goes back to its previous version is computed in `controller.domain.rollout.revert`.
"""

from typing import Final

from controller.domain.rollout import revert
from controller.domain.rollout.lifecycle import with_command_issued
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    MemberTransition,
    RevertState,
    Rollout,
    RolloutDevice,
    RolloutMember,
    replace_member,
)
from controller.domain.rollout.window import closes_at, opens_at
from controller.domain.update_names import is_older
from schemas.commands import CommandState
from schemas.updates import ANY_CLASS, UpdatePhase, UpdateRefusalCode

GRACE: Final = revert.GRACE
BEGIN_WITHIN: Final = 600.0  # seconds in which a device has to begin a command; less if the timeout is shorter
CLOCK_RETRY: Final = 300.0  # seconds after which a device whose clock was wrong is ordered again
MAX_DEFERRALS: Final = 16  # times that a device may be unreachable when it is scheduled
_DENIALS: Final = frozenset({MemberState.FAILED, MemberState.DECLINED})
_UNSUCCESSFUL: Final = frozenset({UpdatePhase.FAILED, UpdatePhase.ROLLED_BACK, UpdatePhase.BROKEN, UpdatePhase.REFUSED})
_NOTHING_CHANGED: Final = frozenset({UpdatePhase.REFUSED, UpdatePhase.FAILED})
_NOT_BEGUN: Final = frozenset({"", *_NOTHING_CHANGED})


def schedule(
    rollout: Rollout, member: RolloutMember, device: RolloutDevice, installed: InstalledVersion, now: float
) -> MemberTransition:
    """Moves a pending device to `ordered`, or to the state that says why it cannot be updated now.

    The caller has checked `may_issue_command`. For an `ordered` device it issues the command and calls
    `on_command_issued` or `on_command_refused`.
    """
    reason = _ineligible_reason(rollout, device, installed) if installed.is_known else ""
    if reason:
        return replace_member(rollout, member, now, state=MemberState.SKIPPED, deadline=0.0, reason=reason)
    newer = newer_version(rollout, installed)
    if newer:
        text = f"has {newer}, which is newer than {rollout.target.version}"
        # A device that was ordered before may still carry that order out: then it goes back with the others.
        state = MemberState.UNKNOWN if member.command_id else MemberState.SKIPPED
        return replace_member(rollout, member, now, state=state, deadline=0.0, reason=text)
    if is_already_installed(rollout, installed):
        if member.command_id:  # an earlier order did it
            return _confirm(rollout, member, now)
        text = f"has {rollout.target.version} already"
        return replace_member(
            rollout, member, now, state=MemberState.SKIPPED, already_installed=True, deadline=0.0, reason=text
        )
    # A device is judged absent only while it could be updated: the window comes first.
    opening = opens_at(rollout.terms.window, device.zone, now)
    if opening > now:
        text = f"waits for its maintenance window ({device.zone})"
        return replace_member(rollout, member, now, not_before=opening, reason=text)
    obstacle = revert.obstacle(device) or _unreadable(installed)
    if obstacle:
        return _defer(rollout, member, obstacle, device.zone, now)
    end = order_end(rollout, device.zone, now)
    rollout, member = replace_member(
        rollout,
        member,
        now,
        state=MemberState.ORDERED,
        previous_version=installed.version,
        deadline=rollout.time(now) + end - now + GRACE,
        not_before=0.0,
        waited=0.0,
        ends_with_window=end < now + rollout.terms.timeout,
        reason="",
    )
    return with_command_issued(rollout, now), member


def order_end(rollout: Rollout, zone: str, now: float) -> float:
    """Returns until when a device may carry out an order of now, Unix seconds: within its window."""
    return min(now + rollout.terms.timeout, closes_at(rollout.terms.window, zone, now))


def _ineligible_reason(rollout: Rollout, device: RolloutDevice, installed: InstalledVersion) -> str:
    """Returns why the target does not apply to the device, empty if it does.

    The reported class takes precedence over the controller's, because the device checks the target by it.
    """
    target = rollout.target
    device_class = installed.device_class or device.device_class
    if ANY_CLASS not in target.classes and device_class not in target.classes:
        return f"not for its class ({device_class or 'none'})"
    if target.hardware and not set(target.hardware) & set(installed.hardware):
        return "not for its hardware"
    return ""


def newer_version(rollout: Rollout, installed: InstalledVersion) -> str:
    """Returns the version of a device that the target would take back, empty where it may or its order is unknown."""
    if rollout.terms.allow_downgrade or not installed.version:
        return ""
    is_downgrade = is_older(rollout.target.version, installed.version, rollout.target.installer)
    return installed.version if is_downgrade else ""


def _unreadable(installed: InstalledVersion) -> str:
    if installed.is_known:
        return ""
    return _ABSENT if installed.is_absent else _UNREADABLE


_ABSENT: Final = "the device does not report the software section: it cannot be updated"
_UNREADABLE: Final = "its last report has no readable software section"
_UNKNOWN_VERSION: Final = (_ABSENT, _UNREADABLE)
_WAITS_FOR_TIME: Final = "waits for the time"
_SKIPPED_AFTER: Final = (_ABSENT, revert.ISOLATED)


def _defer(rollout: Rollout, member: RolloutMember, reason: str, zone: str, now: float) -> MemberTransition:
    if member.deferrals >= MAX_DEFERRALS:
        text = f"deferred {member.deferrals} times: {reason}"
        return replace_member(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason=text)
    wait = min(rollout.terms.timeout - member.waited, closes_at(rollout.terms.window, zone, now) - now)
    return replace_member(
        rollout,
        member,
        now,
        state=MemberState.AWAY,
        deferrals=member.deferrals + 1,
        waited=member.waited + wait,
        deadline=rollout.time(now) + wait,
        reason=reason,
    )


def on_command_issued(rollout: Rollout, member: RolloutMember, command_id: str, now: float) -> MemberTransition:
    """Records the id of the command that `schedule` asked for."""
    return replace_member(rollout, member, now, command_id=command_id)


def on_command_refused(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    """Records that the command that `schedule` asked for was not issued."""
    return _fail(rollout, member, reason, now)


def on_reachable(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Puts a deferred device back into the queue; a confirmed device is no longer stale."""
    if member.state is MemberState.AWAY and not member.reason.startswith((*_UNKNOWN_VERSION, _WAITS_FOR_TIME)):
        return _queue_again(rollout, member, now)
    if member.is_stale:
        return replace_member(rollout, member, now, is_stale=False)
    return rollout, member


def _queue_again(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    return replace_member(rollout, member, now, state=MemberState.PENDING, deadline=0.0, waited=0.0, reason="")


def on_stale(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Marks a confirmed device that became silent: its ring does not pass while it is."""
    if member.state is not MemberState.CONFIRMED or member.is_stale:
        return rollout, member
    return replace_member(rollout, member, now, is_stale=True)


def is_already_installed(rollout: Rollout, installed: InstalledVersion) -> bool:
    """Whether the report shows the target version, confirmed and healthy."""
    is_confirmed = installed.version == rollout.target.version and installed.outcome == UpdatePhase.CONFIRMED
    return is_confirmed and _is_healthy(rollout, installed)


def _is_healthy(rollout: Rollout, installed: InstalledVersion) -> bool:
    # A target without a health check always reports "unknown"; a target with one has to pass it.
    return installed.health == "ok" or (installed.health == "unknown" and not rollout.target.has_health_check)


def on_report(rollout: Rollout, member: RolloutMember, installed: InstalledVersion, now: float) -> MemberTransition:
    """Applies a posture report: only a report confirms an update, or shows later that it failed.

    A report without a readable section about updates says nothing about either.
    """
    if not installed.is_known:
        return rollout, member
    if member.revert is not RevertState.NONE:
        return revert.on_report(rollout, member, installed, now)
    if member.state is MemberState.AWAY and member.reason in _UNKNOWN_VERSION:
        return _queue_again(rollout, member, now)
    if member.state.is_under_way:
        return _report_while_updating(rollout, member, installed, now)
    if member.state is MemberState.CONFIRMED:
        return _report_after_update(rollout, member, installed, now)
    if member.state is MemberState.UNKNOWN and is_already_installed(rollout, installed):
        return _confirm(rollout, member, now)
    if member.state in _DENIALS and member.command_id and installed.version == rollout.target.version:
        # By its own word it does not have the version; a report counts more. It goes back with the others.
        return replace_member(rollout, member, now, phase=installed.outcome)
    return rollout, member


def _report_while_updating(
    rollout: Rollout, member: RolloutMember, installed: InstalledVersion, now: float
) -> MemberTransition:
    if is_already_installed(rollout, installed):
        return _confirm(rollout, member, now)
    if installed.is_blank and member.previous_version and not member.was_replaced:
        return _start_over(rollout, member, now)
    is_own_result = installed.command_id == member.command_id
    if is_own_result and installed.outcome in _UNSUCCESSFUL:
        reason = installed.reason or f"the update is {installed.outcome}"
        return _fail(rollout, member, reason, now, installed.outcome)
    is_target = installed.version == rollout.target.version
    # A health that is not known yet is no failure: a later report has to show it, before the deadline.
    if is_target and installed.health == "unknown":
        return rollout, member
    if is_own_result and member.state is MemberState.CLAIMED and installed.outcome == UpdatePhase.CONFIRMED:
        shown = f"health {installed.health}" if is_target else f"version {installed.version!r}"
        return _fail(rollout, member, f"the device reported success, but its posture report shows {shown}", now)
    return rollout, member


def _confirm(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    return replace_member(
        rollout,
        member,
        now,
        state=MemberState.CONFIRMED,
        was_received=True,
        deadline=0.0,
        phase=UpdatePhase.CONFIRMED.value,
        percent=100,
        reason="",
    )


def _report_after_update(
    rollout: Rollout, member: RolloutMember, installed: InstalledVersion, now: float
) -> MemberTransition:
    if installed.is_blank and not member.was_replaced:
        return _start_over(rollout, member, now)
    if installed.version != rollout.target.version:
        return _fail(rollout, member, f"after the update it reported version {installed.version!r}", now)
    if installed.health == "failed":
        return _fail(rollout, member, "after the update its health check failed", now)
    return rollout, member


def _start_over(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Makes a device that blank hardware replaced a new one; a device that loses the update again has failed."""
    new = RolloutMember(member.device_id, member.ring, was_replaced=True, reason="replaced by blank hardware")
    return replace_member(
        rollout, member, now, **{name: getattr(new, name) for name in RolloutMember.__slots__ if name != "updated_at"}
    )


def _fail(
    rollout: Rollout, member: RolloutMember, reason: str, now: float, phase: str | None = None
) -> MemberTransition:
    return replace_member(
        rollout,
        member,
        now,
        state=MemberState.FAILED,
        was_received=True,
        deadline=0.0,
        reason=reason,
        phase=member.phase if phase is None else phase,
    )


def on_command_progress(
    rollout: Rollout, member: RolloutMember, progress: CommandProgress, now: float
) -> MemberTransition:
    """Applies a result of one of the device's commands; other commands change nothing."""
    if progress.command_id and progress.command_id == member.revert_command_id:
        return revert.on_command_progress(rollout, member, progress, now)
    if progress.command_id != member.command_id or not member.state.is_under_way:
        return rollout, member
    phase = progress.phase or member.phase
    match progress.state:
        case CommandState.EXECUTING.value if member.state is not MemberState.CLAIMED:
            return replace_member(
                rollout,
                member,
                now,
                state=MemberState.RECEIVED,
                was_received=True,
                phase=phase,
                percent=progress.percent,
                previous_version=progress.previous_version or member.previous_version,
            )
        case CommandState.SUCCEEDED.value:
            return replace_member(
                rollout, member, now, state=MemberState.CLAIMED, was_received=True, phase=phase, percent=100
            )
        case CommandState.FAILED.value if phase == UpdatePhase.DECLINED:
            return replace_member(
                rollout, member, now, state=MemberState.DECLINED, was_received=True, deadline=0.0, phase=phase,
                reason=progress.reason,
            )  # fmt: skip
        case CommandState.FAILED.value | CommandState.REJECTED.value | CommandState.EXPIRED.value if (
            progress.reason_code == UpdateRefusalCode.CLOCK and progress.phase in _NOT_BEGUN
        ):
            return _wait_for_time(rollout, member, progress.reason, now)
        case CommandState.FAILED.value if _ended_with_window(member, progress):
            return _wait_for_next_window(rollout, member, progress.reason, now)
        case CommandState.FAILED.value | CommandState.REJECTED.value:
            return _fail(rollout, member, progress.reason or progress.state, now, phase)
        # During a pause no deadline runs: that of the rollout decides afterwards.
        case CommandState.EXPIRED.value if not rollout.is_paused:
            return time_out(rollout, member, now, progress.reason)
        case _:
            return rollout, member


def _ended_with_window(member: RolloutMember, progress: CommandProgress) -> bool:
    """Whether the device gave up because its window closed, and changed nothing."""
    return (
        member.ends_with_window
        and progress.reason_code == UpdateRefusalCode.DEADLINE
        and progress.phase in _NOTHING_CHANGED
    )


def _wait_for_time(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    """Orders a device whose clock is wrong later again, a limited number of times: that is no verdict on the update."""
    if member.deferrals >= MAX_DEFERRALS:
        text = f"its clock was wrong {member.deferrals} times: {reason}"
        return replace_member(
            rollout, member, now, state=MemberState.UNKNOWN, was_received=False, deadline=0.0, reason=text
        )
    return replace_member(
        rollout,
        member,
        now,
        state=MemberState.AWAY,
        deferrals=member.deferrals + 1,
        was_received=False,
        deadline=rollout.time(now) + CLOCK_RETRY,
        phase="",
        percent=0,
        reason=f"{_WAITS_FOR_TIME}: {reason}",
    )


def _wait_for_next_window(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    """Puts a device whose window closed before it was done back into the queue, a limited number of times."""
    if member.deferrals >= MAX_DEFERRALS:
        text = f"its window closed {member.deferrals} times before it was done: {reason}"
        return replace_member(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason=text)
    return replace_member(
        rollout,
        member,
        now,
        state=MemberState.PENDING,
        deferrals=member.deferrals + 1,
        was_received=False,
        deadline=0.0,
        phase="",
        percent=0,
        reason=reason,
    )


def time_out(rollout: Rollout, member: RolloutMember, now: float, reason: str = "") -> MemberTransition:
    """Ends the present state of a device whose deadline has passed or whose command has expired."""
    if member.revert is RevertState.REVERTING:
        return revert.time_out(rollout, member, now, reason)
    match member.state:
        case MemberState.AWAY if member.waited < rollout.terms.timeout:
            # Its window closed: it is looked for again when the next one opens.
            return replace_member(rollout, member, now, state=MemberState.PENDING, deadline=0.0, reason="")
        case MemberState.AWAY if member.reason in _SKIPPED_AFTER:
            return replace_member(rollout, member, now, state=MemberState.SKIPPED, deadline=0.0)
        case MemberState.ORDERED if member.ends_with_window:
            return _wait_for_next_window(rollout, member, reason or "not begun before its window closed", now)
        case MemberState.AWAY | MemberState.ORDERED:
            text = reason or member.reason or "not begun in time"
        case MemberState.RECEIVED:
            text = reason or f"silent since {member.phase or 'it received the command'}"
        case MemberState.CLAIMED:
            text = reason or "no report showed the new version in time"
        case _:
            return rollout, member
    return replace_member(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason=text)


def on_command_withdrawn(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Ends a device whose command was withdrawn before it was received, because the rollout ends."""
    if member.state is not MemberState.ORDERED:
        return rollout, member
    text = "the command was withdrawn"
    return replace_member(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason=text)
