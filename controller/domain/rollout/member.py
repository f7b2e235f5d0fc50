"""Computes the next state of one device of a rollout, together with the tally of its ring. Pure."""

from typing import Any, Final

from controller.domain.evolve import evolve
from controller.domain.rollout.lifecycle import with_command_issued
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberState,
    RevertState,
    Rollout,
    RolloutDevice,
    RolloutMember,
)
from controller.domain.rollout.window import opens_at
from schemas.commands import CommandState
from schemas.updates import ANY_CLASS, UpdatePhase

GRACE: Final = 60.0  # seconds after the device's own deadline, in which its last result may still arrive
BEGIN_WITHIN: Final = 600.0  # seconds in which a device has to begin a command; less if the timeout is shorter
MAX_DEFERRALS: Final = 16  # times that a device may be unreachable when it is scheduled
_NOT_INSTALLED: Final = frozenset(
    {UpdatePhase.REFUSED, UpdatePhase.FAILED, UpdatePhase.ROLLED_BACK, UpdatePhase.DECLINED}
)
_UNSUCCESSFUL: Final = frozenset({UpdatePhase.FAILED, UpdatePhase.ROLLED_BACK, UpdatePhase.BROKEN, UpdatePhase.REFUSED})

MemberTransition = tuple[Rollout, RolloutMember]


def replace_member(rollout: Rollout, member: RolloutMember, now: float, /, **changes: Any) -> MemberTransition:
    """Returns the device with the changed fields, and the rollout with the tally that follows."""
    after = evolve(member, updated_at=now, **changes)
    rings = list(rollout.rings)
    rings[member.ring] = rings[member.ring].with_transition(member, after)
    return evolve(rollout, rings=tuple(rings)), after


def schedule(
    rollout: Rollout, member: RolloutMember, device: RolloutDevice, installed: InstalledVersion, now: float
) -> MemberTransition:
    """Moves a pending device to `ordered`, or to the state that says why it cannot be updated now.

    The caller has checked `may_issue_command`. For an `ordered` device it issues the command and calls
    `on_command_issued` or `on_command_refused`.
    """
    reason = _ineligible_reason(rollout, device, installed)
    if reason:
        return replace_member(rollout, member, now, state=MemberState.SKIPPED, deadline=0.0, reason=reason)
    if is_already_installed(rollout, installed):
        text = f"has {rollout.target.version} already"
        return replace_member(
            rollout, member, now, state=MemberState.SKIPPED, already_installed=True, deadline=0.0, reason=text
        )
    obstacle = _obstacle(device)
    if obstacle:
        return _defer(rollout, member, obstacle, now)
    opening = opens_at(rollout.terms.window, device.zone, now)
    if opening > now:
        text = f"waits for its maintenance window ({device.zone})"
        return replace_member(rollout, member, now, not_before=opening, reason=text)
    rollout, member = replace_member(
        rollout,
        member,
        now,
        state=MemberState.ORDERED,
        previous_version=installed.version,
        deadline=now + rollout.terms.timeout + GRACE,
        not_before=0.0,
        reason="",
    )
    return with_command_issued(rollout, now), member


def _ineligible_reason(rollout: Rollout, device: RolloutDevice, installed: InstalledVersion) -> str:
    """Returns why the target does not apply to the device, empty if it does.

    The reported class takes precedence over the controller's, because the device checks the target by it.
    """
    target = rollout.target
    if not installed.is_known:
        return "the device does not report the software section: it cannot be updated"
    device_class = installed.device_class or device.device_class
    if ANY_CLASS not in target.classes and device_class not in target.classes:
        return f"not for its class ({device_class or 'none'})"
    if target.hardware and not set(target.hardware) & set(installed.hardware):
        return "not for its hardware"
    return ""


def _obstacle(device: RolloutDevice) -> str:
    if device.is_isolated:
        return _ISOLATED
    if not device.is_reachable:
        return "not connected"
    return "too many commands are open" if device.is_busy else ""


_ISOLATED: Final = "isolated"


def _defer(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    if member.deferrals >= MAX_DEFERRALS:
        text = f"deferred {member.deferrals} times: {reason}"
        return replace_member(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason=text)
    return replace_member(
        rollout,
        member,
        now,
        state=MemberState.AWAY,
        deferrals=member.deferrals + 1,
        deadline=now + rollout.terms.timeout,
        reason=reason,
    )


def on_command_issued(rollout: Rollout, member: RolloutMember, command_id: str, now: float) -> MemberTransition:
    """Records the id of the command that `schedule` or `revert` asked for."""
    if member.revert is RevertState.REVERTING:
        return replace_member(rollout, member, now, revert_command_id=command_id)
    return replace_member(rollout, member, now, command_id=command_id)


def on_command_refused(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    """Records that the command that `schedule` or `revert` asked for was not issued."""
    if member.revert is RevertState.REVERTING:
        return replace_member(rollout, member, now, revert=RevertState.NOT_REVERTED, deadline=0.0, reason=reason)
    return _fail(rollout, member, reason, now)


def on_reachable(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Puts a deferred device back into the queue; a confirmed device is no longer stale."""
    if member.state is MemberState.AWAY:
        return replace_member(rollout, member, now, state=MemberState.PENDING, deadline=0.0, reason="")
    if member.is_stale:
        return replace_member(rollout, member, now, is_stale=False)
    return rollout, member


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
    """Applies a posture report: only a report confirms an update, or shows later that it failed."""
    if member.revert is RevertState.REVERTING:
        if installed.is_known and installed.version != rollout.target.version:
            return replace_member(rollout, member, now, revert=RevertState.REVERTED, deadline=0.0)
        return rollout, member
    if member.state.is_under_way:
        return _report_while_updating(rollout, member, installed, now)
    if member.state is MemberState.CONFIRMED and member.revert is RevertState.NONE:
        return _report_after_update(rollout, member, installed, now)
    is_late = member.state is MemberState.UNKNOWN and member.revert is RevertState.NONE
    if is_late and is_already_installed(rollout, installed):
        return _confirm(rollout, member, now)
    return rollout, member


def _report_while_updating(
    rollout: Rollout, member: RolloutMember, installed: InstalledVersion, now: float
) -> MemberTransition:
    if is_already_installed(rollout, installed):
        return _confirm(rollout, member, now)
    is_own_result = installed.command_id == member.command_id
    if is_own_result and installed.outcome in _UNSUCCESSFUL:
        reason = installed.reason or f"the update is {installed.outcome}"
        return _fail(rollout, member, reason, now, installed.outcome)
    if is_own_result and member.state is MemberState.CLAIMED and installed.outcome == UpdatePhase.CONFIRMED:
        is_target = installed.version == rollout.target.version
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
    if installed.version != rollout.target.version:
        return _fail(rollout, member, f"after the update it reported version {installed.version!r}", now)
    if installed.health == "failed":
        return _fail(rollout, member, "after the update its health check failed", now)
    return rollout, member


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
        return _on_revert_progress(rollout, member, progress, now)
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
        case CommandState.FAILED.value | CommandState.REJECTED.value:
            return _fail(rollout, member, progress.reason or progress.state, now, phase)
        case CommandState.EXPIRED.value:
            return time_out(rollout, member, now, progress.reason)
        case _:
            return rollout, member


def _on_revert_progress(
    rollout: Rollout, member: RolloutMember, progress: CommandProgress, now: float
) -> MemberTransition:
    if member.revert is not RevertState.REVERTING:
        return rollout, member
    if progress.state in (CommandState.FAILED.value, CommandState.REJECTED.value, CommandState.EXPIRED.value):
        return on_command_refused(rollout, member, progress.reason or progress.state, now)
    # A success is a claim: the next posture report has to show the previous version.
    return replace_member(rollout, member, now, phase=progress.phase or member.phase)


def time_out(rollout: Rollout, member: RolloutMember, now: float, reason: str = "") -> MemberTransition:
    """Ends the present state of a device whose deadline has passed or whose command has expired."""
    if member.revert is RevertState.REVERTING:
        text = reason or "no report showed the previous version in time"
        return replace_member(rollout, member, now, revert=RevertState.NOT_REVERTED, deadline=0.0, reason=text)
    match member.state:
        case MemberState.AWAY if member.reason == _ISOLATED:
            return replace_member(rollout, member, now, state=MemberState.SKIPPED, deadline=0.0)
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


def needs_revert(member: RolloutMember) -> bool:
    """Whether the device may have the new version through this rollout and is not reverting already."""
    if member.revert is not RevertState.NONE or not member.command_id:
        return False
    match member.state:
        case MemberState.CONFIRMED | MemberState.UNKNOWN:
            return True
        case MemberState.FAILED:
            return member.phase not in _NOT_INSTALLED
        case _:
            return False


def revert(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Moves a device to `reverting`; the caller issues the command as after `schedule`."""
    deadline = now + rollout.terms.timeout + GRACE
    return replace_member(rollout, member, now, revert=RevertState.REVERTING, deadline=deadline)
