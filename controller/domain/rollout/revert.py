"""Computes how one device of a rollout goes back to its previous version. Pure.

A device that cannot be reached, or does not answer, stays `away` and is ordered back when it is heard, also after the
rollout has ended.
"""

from typing import Final

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
from schemas.commands import CommandState
from schemas.updates import UpdatePhase, UpdateRefusalCode

GRACE: Final = 60.0  # seconds after an order's end, in which its last result may still arrive
MAX_ORDERS: Final = 16  # to one device; one that never answers is not ordered for ever
_NOT_INSTALLED: Final = frozenset(
    {UpdatePhase.REFUSED, UpdatePhase.FAILED, UpdatePhase.ROLLED_BACK, UpdatePhase.DECLINED}
)
_FAILURES: Final = frozenset({CommandState.FAILED.value, CommandState.REJECTED.value})


def obstacle(device: RolloutDevice) -> str:
    """Returns why a device cannot be ordered anything now, empty if it can."""
    if device.is_isolated:
        return ISOLATED
    if not device.is_reachable:
        return "not connected"
    return "too many commands are open" if device.is_busy else ""


ISOLATED: Final = "isolated"


def needs_revert(member: RolloutMember) -> bool:
    """Whether the device may have the new version through this rollout, and nothing was done about it yet."""
    if member.revert is not RevertState.NONE or not member.command_id:
        return False
    match member.state:
        case MemberState.CONFIRMED | MemberState.UNKNOWN:
            return True
        # Not begun before its window closed, as far as is known.
        case MemberState.PENDING | MemberState.AWAY:
            return True
        case MemberState.FAILED | MemberState.DECLINED:
            return member.phase not in _NOT_INSTALLED
        case _:
            return False


def ask_again(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Lets a device that did not revert be ordered once more."""
    if member.revert is not RevertState.NOT_REVERTED:
        return rollout, member
    return replace_member(rollout, member, now, revert=RevertState.NONE, revert_orders=0, reason="")


def order_end(rollout: Rollout, zone: str, now: float) -> float:
    """Returns when an order to revert that is issued now ends, Unix seconds: with its window at the latest."""
    closing = closes_at(None if rollout.reverts_now else rollout.terms.window, zone, now)
    return min(now + rollout.terms.timeout, closing) + GRACE


def schedule(rollout: Rollout, member: RolloutMember, device: RolloutDevice, now: float) -> MemberTransition:
    """Moves a device to `reverting`, or to the state that says what it waits for.

    For a `reverting` device the caller issues the command and calls `on_command_issued` or `on_command_refused`.
    """
    opening = opens_at(None if rollout.reverts_now else rollout.terms.window, device.zone, now)
    if opening > now:
        text = f"waits for its maintenance window ({device.zone}) to go back"
        return replace_member(
            rollout, member, now, revert=RevertState.PENDING, not_before=opening, deadline=0.0, reason=text
        )
    reason = obstacle(device)
    if reason:
        return _wait_until_heard(rollout, member, reason, now)
    deadline = rollout.time(now) + order_end(rollout, device.zone, now) - now
    return replace_member(
        rollout,
        member,
        now,
        revert=RevertState.REVERTING,
        revert_orders=member.revert_orders + 1,
        deadline=deadline,
        not_before=0.0,
        reason="",
    )


def on_command_issued(rollout: Rollout, member: RolloutMember, command_id: str, now: float) -> MemberTransition:
    """Records the id of the command that `schedule` asked for."""
    return replace_member(rollout, member, now, revert_command_id=command_id)


def on_command_refused(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    """Ends a revert that the device refused, or whose command was not issued."""
    return give_up(rollout, member, reason, now)


def give_up(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    """Leaves the device with the version that it has, until the rollout is asked again."""
    return replace_member(
        rollout, member, now, revert=RevertState.NOT_REVERTED, deadline=0.0, not_before=0.0, reason=reason
    )


def on_command_progress(
    rollout: Rollout, member: RolloutMember, progress: CommandProgress, now: float
) -> MemberTransition:
    """Applies a result of the command that reverts."""
    if member.revert is not RevertState.REVERTING:
        return rollout, member
    if progress.reason_code == UpdateRefusalCode.CLOCK:
        return rollout, member  # the order's deadline decides, and the next one follows
    if progress.state in _FAILURES:
        return on_command_refused(rollout, member, progress.reason or progress.state, now)
    if progress.state == CommandState.EXPIRED.value:
        return time_out(rollout, member, now, progress.reason)
    # A success is a claim: the next posture report has to show the previous version.
    return replace_member(rollout, member, now, phase=progress.phase or member.phase)


def on_report(rollout: Rollout, member: RolloutMember, installed: InstalledVersion, now: float) -> MemberTransition:
    """Applies a posture report of a device that has to revert or had to: another version than the target is a proof."""
    if installed.version == rollout.target.version:
        if member.revert is RevertState.REVERTED:
            # The report that showed the previous version was written before the update ended.
            return _wait_until_heard(rollout, member, f"its report shows {installed.version} again", now)
        return rollout, member
    if member.revert is RevertState.REVERTED:
        return rollout, member
    return replace_member(rollout, member, now, revert=RevertState.REVERTED, deadline=0.0, not_before=0.0, reason="")


def time_out(rollout: Rollout, member: RolloutMember, now: float, reason: str = "") -> MemberTransition:
    """Ends an order whose deadline has passed or which has expired: the next one follows when the device is heard."""
    text = reason or "no report showed the previous version in time"
    if member.revert_orders >= MAX_ORDERS:
        return give_up(rollout, member, f"ordered back {member.revert_orders} times: {text}", now)
    return _wait_until_heard(rollout, member, text, now)


def _wait_until_heard(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    if member.revert is RevertState.AWAY and member.reason == reason:
        return rollout, member
    return replace_member(rollout, member, now, revert=RevertState.AWAY, deadline=0.0, not_before=0.0, reason=reason)
