"""Decides what becomes of one device of a rollout, and keeps the tally of its ring right. Pure."""

from typing import Any, Final

from controller.domain.evolve import evolve
from controller.domain.rollout.lifecycle import ordered
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

GRACE: Final = 60.0  # seconds after a device's own deadline, for its last word to arrive
BEGIN_WITHIN: Final = 600.0  # seconds in which an order has to be begun; less where the timeout is shorter
MAX_AWAY: Final = 16  # times a device's turn may come in vain
_SAME_AGAIN: Final = frozenset({UpdatePhase.REFUSED, UpdatePhase.FAILED, UpdatePhase.ROLLED_BACK, UpdatePhase.DECLINED})
_OVER: Final = frozenset({UpdatePhase.FAILED, UpdatePhase.ROLLED_BACK, UpdatePhase.BROKEN, UpdatePhase.REFUSED})

MemberTransition = tuple[Rollout, RolloutMember]


def put(rollout: Rollout, was: RolloutMember, now: float, /, **changes: Any) -> MemberTransition:
    """A device with fields changed, and the rollout that counts it so."""
    after = evolve(was, updated_at=now, **changes)
    rings = list(rollout.rings)
    rings[was.ring] = rings[was.ring].moved(was, after)
    return evolve(rollout, rings=tuple(rings)), after


def turn(
    rollout: Rollout, member: RolloutMember, view: RolloutDevice, found: InstalledVersion, now: float, order_id: str
) -> MemberTransition:
    """A device's turn has come: it is ordered, or it is said why not. The caller has asked `may_order`."""
    unfit = _unfit(rollout, view, found)
    if unfit:
        return put(rollout, member, now, state=MemberState.SKIPPED, deadline=0.0, reason=unfit)
    if has_it(rollout, found):
        text = f"has {rollout.target.version} already"
        return put(rollout, member, now, state=MemberState.SKIPPED, had_it=True, deadline=0.0, reason=text)
    hindered = _hindered(view)
    if hindered:
        return _away(rollout, member, hindered, now)
    opening = opens_at(rollout.terms.window, view.zone, now)
    if opening > now:
        return put(rollout, member, now, not_before=opening, reason=f"waits for its window ({view.zone})")
    rollout, member = put(
        rollout,
        member,
        now,
        state=MemberState.ORDERED,
        order_id=order_id,
        before=found.version,
        deadline=now + rollout.terms.timeout + GRACE,
        not_before=0.0,
        reason="",
    )
    return ordered(rollout, now), member


def _unfit(rollout: Rollout, view: RolloutDevice, found: InstalledVersion) -> str:
    """Why a device is not one for this target; what it says of itself counts, since it will refuse by that."""
    target = rollout.target
    if not found.is_known:
        return "its reports say nothing of updates: it cannot be updated"
    device_class = found.device_class or view.device_class
    if ANY_CLASS not in target.classes and device_class not in target.classes:
        return f"not for its class ({device_class or 'none'})"
    if target.hardware and not set(target.hardware) & set(found.hardware):
        return "not for its hardware"
    return ""


def _hindered(view: RolloutDevice) -> str:
    if view.is_isolated:
        return "isolated"
    if not view.is_there:
        return "not there"
    return "too many commands are open" if view.is_busy else ""


def _away(rollout: Rollout, member: RolloutMember, reason: str, now: float) -> MemberTransition:
    if member.away >= MAX_AWAY:
        text = f"its turn came {member.away} times in vain: {reason}"
        return put(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason=text)
    return put(
        rollout,
        member,
        now,
        state=MemberState.AWAY,
        away=member.away + 1,
        deadline=now + rollout.terms.timeout,
        reason=reason,
    )


def came_back(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Whatever hindered a device is over: it queues again. A confirmed one that was silent is heard."""
    if member.state is MemberState.AWAY:
        return put(rollout, member, now, state=MemberState.PENDING, deadline=0.0, reason="")
    if member.is_silent:
        return put(rollout, member, now, is_silent=False)
    return rollout, member


def fell_silent(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """Nothing is heard of a device that has the update: its ring is not green as long as that is so."""
    if member.state is not MemberState.CONFIRMED or member.is_silent:
        return rollout, member
    return put(rollout, member, now, is_silent=True)


def has_it(rollout: Rollout, found: InstalledVersion) -> bool:
    """Whether a report shows the wanted version, confirmed and healthy."""
    is_there = found.version == rollout.target.version and found.outcome == UpdatePhase.CONFIRMED
    return is_there and _is_healthy(rollout, found)


def _is_healthy(rollout: Rollout, found: InstalledVersion) -> bool:
    # A target without a check of its own says nothing of its health; one that has a check has to pass it.
    return found.health == "ok" or (found.health == "unknown" and not rollout.target.has_check)


def looked(rollout: Rollout, member: RolloutMember, found: InstalledVersion, now: float) -> MemberTransition:
    """A report came: only what it shows confirms, or shows that it went wrong after all."""
    if member.back is RevertState.REVERTING:
        if found.is_known and found.version != rollout.target.version:
            return put(rollout, member, now, back=RevertState.REVERTED, deadline=0.0)
        return rollout, member
    if member.state.is_under_way:
        return _looked_under_way(rollout, member, found, now)
    if member.state is MemberState.CONFIRMED and member.back is RevertState.NONE:
        return _looked_after(rollout, member, found, now)
    if member.state is MemberState.UNKNOWN and member.back is RevertState.NONE and has_it(rollout, found):
        return _confirmed(rollout, member, now)  # it is heard again, and has it after all
    return rollout, member


def _looked_under_way(rollout: Rollout, member: RolloutMember, found: InstalledVersion, now: float) -> MemberTransition:
    if has_it(rollout, found):
        return _confirmed(rollout, member, now)
    is_ours = found.command_id == member.command_id
    if is_ours and found.outcome in _OVER:
        return _failed(rollout, member, found.reason or f"the update is {found.outcome}", now, found.outcome)
    if is_ours and member.state is MemberState.CLAIMED and found.outcome == UpdatePhase.CONFIRMED:
        what = f"health {found.health}" if found.version == rollout.target.version else f"version {found.version!r}"
        return _failed(rollout, member, f"it said that it is done, and its report shows {what}", now)
    return rollout, member


def _confirmed(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    return put(
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


def _looked_after(rollout: Rollout, member: RolloutMember, found: InstalledVersion, now: float) -> MemberTransition:
    if found.version != rollout.target.version:
        return _failed(rollout, member, f"afterwards it had version {found.version!r}", now)
    if found.health == "failed":
        return _failed(rollout, member, "afterwards its health check failed", now)
    return rollout, member


def _failed(
    rollout: Rollout, member: RolloutMember, reason: str, now: float, phase: str | None = None
) -> MemberTransition:
    return put(
        rollout,
        member,
        now,
        state=MemberState.FAILED,
        was_received=True,
        deadline=0.0,
        reason=reason,
        phase=member.phase if phase is None else phase,
    )


def told(rollout: Rollout, member: RolloutMember, news: CommandProgress, now: float) -> MemberTransition:
    """A command of this rollout got further."""
    if news.command_id and news.command_id == member.back_command_id:
        return _told_of_return(rollout, member, news, now)
    if news.command_id != member.command_id or not member.state.is_under_way:
        return rollout, member
    phase = news.phase or member.phase
    match news.state:
        case CommandState.EXECUTING.value if member.state is not MemberState.CLAIMED:
            return put(
                rollout,
                member,
                now,
                state=MemberState.RECEIVED,
                was_received=True,
                phase=phase,
                percent=news.percent,
                before=news.before or member.before,
            )
        case CommandState.SUCCEEDED.value:
            return put(rollout, member, now, state=MemberState.CLAIMED, was_received=True, phase=phase, percent=100)
        case CommandState.FAILED.value if phase == UpdatePhase.DECLINED:
            return put(
                rollout, member, now, state=MemberState.DECLINED, was_received=True, deadline=0.0, phase=phase,
                reason=news.reason,
            )  # fmt: skip
        case CommandState.FAILED.value | CommandState.REJECTED.value:
            return _failed(rollout, member, news.reason or news.state, now, phase)
        case CommandState.EXPIRED.value:
            return silent_too_long(rollout, member, now, news.reason)
        case _:
            return rollout, member


def _told_of_return(rollout: Rollout, member: RolloutMember, news: CommandProgress, now: float) -> MemberTransition:
    if member.back is not RevertState.REVERTING:
        return rollout, member
    if news.state in (CommandState.FAILED.value, CommandState.REJECTED.value, CommandState.EXPIRED.value):
        return put(rollout, member, now, back=RevertState.NOT_REVERTED, deadline=0.0, reason=news.reason or news.state)
    # Its success is its word: the next report has to show it.
    return put(rollout, member, now, phase=news.phase or member.phase)


def silent_too_long(rollout: Rollout, member: RolloutMember, now: float, reason: str = "") -> MemberTransition:
    """A device's time is over: it holds nothing open any longer."""
    if member.back is RevertState.REVERTING:
        return put(
            rollout, member, now, back=RevertState.NOT_REVERTED, deadline=0.0, reason=reason or "no report showed it"
        )
    match member.state:
        case MemberState.AWAY if member.reason == "isolated":
            return put(rollout, member, now, state=MemberState.SKIPPED, deadline=0.0)
        case MemberState.AWAY | MemberState.ORDERED:
            text = reason or member.reason or "it did not begin in time"
            return put(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason=text)
        case MemberState.RECEIVED | MemberState.CLAIMED:
            where = f"silent since {member.phase or 'it received it'}"
            text = reason or (where if member.state is MemberState.RECEIVED else "no report showed it in time")
            return put(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason=text)
        case _:
            return rollout, member


def withdrawn(rollout: Rollout, member: RolloutMember, now: float) -> MemberTransition:
    """The rollout ends: an order that was not begun is taken back."""
    if member.state is not MemberState.ORDERED:
        return rollout, member
    return put(rollout, member, now, state=MemberState.UNKNOWN, deadline=0.0, reason="the order was taken back")


def has_to_go_back(member: RolloutMember) -> bool:
    """Whether a device may have the new version by this rollout, and is not on its way back already."""
    if member.back is not RevertState.NONE or not member.order_id:
        return False
    match member.state:
        case MemberState.CONFIRMED | MemberState.UNKNOWN:
            return True
        case MemberState.FAILED:
            return member.phase not in _SAME_AGAIN
        case _:
            return False


def sent_back(rollout: Rollout, member: RolloutMember, now: float, back_id: str) -> MemberTransition:
    """A device is ordered back to the version before."""
    deadline = now + rollout.terms.timeout + GRACE
    return put(rollout, member, now, back=RevertState.REVERTING, back_id=back_id, deadline=deadline)
