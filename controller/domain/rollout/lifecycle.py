"""Computes the next state of a rollout: which ring is open, when it waits, when it stops, how it ends. Pure.

The states of its devices are computed in `controller.domain.rollout.member`.
"""

from collections.abc import Sequence
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.evolve import evolve
from controller.domain.principal import Principal
from controller.domain.rollout.model import (
    RingTally,
    Rollout,
    RolloutError,
    RolloutMember,
    RolloutNote,
    RolloutState,
    RolloutTarget,
    RolloutTerms,
)

APPROVAL_TIMEOUT: Final = 7 * 86_400.0  # seconds in which a second operator may approve
MAX_CATCH_UP: Final = 1.0  # seconds of missed commands that may be issued at once
MAX_MEMBERS: Final = 1_000_000
_MINUTE: Final = 60.0  # seconds
_NOTED_LEAP: Final = 60.0  # seconds; smaller corrections of the clock are not worth an audit entry
# While a ring soaks, a device that was replaced by blank hardware is updated again.
_ISSUES_COMMANDS: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING})

RolloutTransition = tuple[Rollout, tuple[RolloutNote, ...]]


def begin(
    rollout_id: str,
    target: RolloutTarget,
    terms: RolloutTerms,
    rings: Sequence[tuple[str, Sequence[str]]],
    *,
    by: str,
    reason: str,
    now: float,
    rule: str = "",
    trial_rings: int | None = None,
    starter: Principal | None = None,
    remarks: tuple[str, ...] = (),
) -> tuple[Rollout, tuple[RolloutMember, ...]]:
    """Returns a new rollout with its first ring open, and its devices.

    `rings`: names and device ids. Before a second operator approves, only the first `trial_rings` rings open, which are
    configured test rings (None: all but the last); of several rings never the last one.

    Raises:
        RolloutError: there are no devices, too many, or a ring has none (an empty ring proves nothing).
    """
    sizes = [len(devices) for _, devices in rings]
    if not sum(sizes):
        raise RolloutError(f"no device is eligible for {target.name} {target.version}")
    if sum(sizes) > MAX_MEMBERS:
        raise RolloutError(f"a rollout takes at most {MAX_MEMBERS} devices")
    empty = [name for (name, _), size in zip(rings, sizes, strict=True) if not size]
    if empty:
        raise RolloutError(f"ring {empty[0]} is empty and proves nothing: add devices to it, or leave it out")
    tallies = tuple(RingTally(name, pending=size) for (name, _), size in zip(rings, sizes, strict=True))
    members = tuple(
        RolloutMember(device_id, ring, updated_at=now)
        for ring, (_, devices) in enumerate(rings)
        for device_id in devices
    )
    rollout = Rollout(rollout_id, target, terms, tallies, by, reason, created_at=now, rule=rule, starter=starter)
    rollout = evolve(rollout, opened_at=now, next_command_at=now, remarks=remarks)
    unapproved = len(sizes) - 1 if trial_rings is None else min(trial_rings, max(1, len(sizes) - 1))
    rollout = evolve(rollout, unapproved_rings=unapproved)
    if terms.approval and not unapproved:
        rollout = _await_approval(evolve(rollout, ring=-1), now)
    return rollout, members


def requires_zero_errors(rollout: Rollout, ring: int) -> bool:
    """Whether the ring may have no error at all: the first ring, if others follow."""
    return ring == 0 and len(rollout.rings) > 1


def stop_reason(rollout: Rollout) -> str:
    """Returns why the results so far, of this ring and the earlier ones, forbid to continue; empty if they do not."""
    terms = rollout.terms
    for number, ring in enumerate(rollout.opened_rings):
        if requires_zero_errors(rollout, number):
            if ring.errors:
                return f"ring {ring.name}: {ring.errors} of {ring.sample} devices failed, none may"
            continue
        is_finished = not ring.waiting and not ring.under_way
        if (is_finished or ring.sample >= terms.min_sample) and ring.error_rate > terms.error_threshold:
            return (
                f"ring {ring.name}: {ring.errors} of {ring.sample} devices that received the update failed"
                f" ({ring.error_rate:.0%}, allowed {terms.error_threshold:.0%})"
            )
    return ""


def max_under_way(rollout: Rollout) -> int:
    """Returns how many devices may update at once.

    At most `min_sample` until as many have finished, so that a bad update reaches few devices however fast commands
    are issued.
    """
    return max(1, rollout.terms.min_sample, rollout.current_ring.sample)


def room_under_way(rollout: Rollout) -> int:
    """Returns how many more devices may update now."""
    return max_under_way(rollout) - sum(ring.under_way for ring in rollout.opened_rings)


def may_issue_command(rollout: Rollout, now: float) -> bool:
    """Whether a device of the open rings may be updated now."""
    return (
        rollout.state in _ISSUES_COMMANDS
        and not rollout.is_paused
        and room_under_way(rollout) > 0
        and rollout.time(now) >= rollout.next_command_at
        and not stop_reason(rollout)
    )


def with_command_issued(rollout: Rollout, now: float) -> Rollout:
    """Returns the rollout after one more command, which counts against the rate limit."""
    if not rollout.terms.per_minute:
        return rollout
    base = max(rollout.next_command_at, rollout.time(now) - MAX_CATCH_UP)
    return evolve(rollout, next_command_at=base + _MINUTE / rollout.terms.per_minute)


def advance(rollout: Rollout, now: float, *, has_pending_reverts: bool = False) -> RolloutTransition:
    """Advances the rollout as far as possible at `now`; advancing the result again changes nothing.

    `has_pending_reverts`: some devices have to revert and have no command for that yet.
    """
    notes: list[RolloutNote] = []
    while True:
        after, added = _advance_once(rollout, now, has_pending_reverts)
        notes += added
        # When a revert begins, the caller has to collect the devices first: `has_pending_reverts` is outdated.
        if after is rollout or after.is_reverting is not rollout.is_reverting:
            return after, tuple(notes)
        rollout = after


def _advance_once(rollout: Rollout, now: float, has_pending_reverts: bool) -> RolloutTransition:
    if rollout.is_paused:
        return rollout, ()
    if rollout.state.is_active:
        reason = stop_reason(rollout)
        if reason:
            return _stop(rollout, reason)
    match rollout.state:
        case RolloutState.RUNNING:
            return _finish_ring(rollout, now)
        case RolloutState.SOAKING:
            return _finish_soak(rollout, now)
        case RolloutState.AWAITING_APPROVAL if rollout.time(now) >= rollout.approval_requested_at + APPROVAL_TIMEOUT:
            return _stop(rollout, "no second operator approved it in time")
        case RolloutState.ENDING | RolloutState.ROLLING_BACK if not has_pending_reverts and not _is_under_way(rollout):
            return _end(rollout, now)
        case _:
            return rollout, ()


def _finish_ring(rollout: Rollout, now: float) -> RolloutTransition:
    ring = rollout.current_ring
    if _has_open_members(rollout):
        return rollout, ()
    if _proves_nothing(ring):
        return _stop(rollout, _nothing_proven(ring))
    # Devices that had the version prove as much as those that got it; how many were never reached is told with it.
    detail: dict[str, object] = {
        "ring": ring.name,
        "confirmed": ring.confirmed,
        "had_it": ring.had_it,
        "unknown": ring.unknown,
        "errors": ring.errors,
    }
    note = RolloutNote(AuditKind.ROLLOUT_RING_COMPLETED, detail=detail)
    if rollout.is_last_ring:
        ended = evolve(rollout, state=RolloutState.COMPLETED, ended_at=now, why="")
        return ended, (note, RolloutNote(AuditKind.ROLLOUT_COMPLETED, detail=_totals(rollout)))
    soak = rollout.terms.soak
    soak_until = rollout.time(now) + soak
    return evolve(rollout, state=RolloutState.SOAKING, soak_until=soak_until, has_restarted=False, why=""), (note,)


def _has_open_members(rollout: Rollout) -> bool:
    return any(ring.waiting or ring.under_way for ring in rollout.opened_rings)


def _proves_nothing(ring: RingTally) -> bool:
    return not ring.confirmed and not ring.had_it


def _nothing_proven(ring: RingTally) -> str:
    return f"ring {ring.name}: no device could be updated, so it proves nothing"


def _finish_soak(rollout: Rollout, now: float) -> RolloutTransition:
    if rollout.time(now) < rollout.soak_until or _has_open_members(rollout):
        return rollout, ()
    ring = rollout.current_ring
    if _proves_nothing(ring):
        return _stop(rollout, _nothing_proven(ring))
    if requires_zero_errors(rollout, rollout.ring) and ring.stale:
        if rollout.time(now) < rollout.soak_until + rollout.terms.timeout:
            return rollout, ()
        return _stop(rollout, f"ring {ring.name}: {ring.stale} devices became silent after the update")
    following = rollout.rings[rollout.ring + 1].name
    unapproved = len(rollout.rings) - 1 if rollout.unapproved_rings is None else rollout.unapproved_rings
    if rollout.ring + 1 >= unapproved and rollout.terms.approval and not rollout.approved_by:
        return _await_approval(rollout, now), (
            RolloutNote(AuditKind.ROLLOUT_APPROVAL_REQUESTED, detail={"ring": following}, alert=True),
        )
    return _open_next_ring(rollout, now)


def _await_approval(rollout: Rollout, now: float) -> Rollout:
    following = rollout.rings[rollout.ring + 1].name
    why = f"a second operator has to approve before ring {following}: cordon rollout approve {rollout.rollout_id}"
    return evolve(rollout, state=RolloutState.AWAITING_APPROVAL, approval_requested_at=rollout.time(now), why=why)


def _open_next_ring(rollout: Rollout, now: float) -> RolloutTransition:
    opened = evolve(rollout, state=RolloutState.RUNNING, ring=rollout.ring + 1, opened_at=now, why="")
    ring = opened.current_ring
    detail: dict[str, object] = {"ring": ring.name, "devices": ring.total}
    if rollout.has_restarted:
        detail["soak_time"] = "by the wall clock while the controller was restarted"
    return opened, (RolloutNote(AuditKind.ROLLOUT_RING_OPENED, detail=detail),)


def withdraw_target(rollout: Rollout) -> RolloutTransition:
    """Stops a rollout whose target is no longer published; devices that have it keep it until an operator decides."""
    if not rollout.state.is_active or rollout.is_paused:
        return rollout, ()
    return _stop(rollout, f"{rollout.target.path} was withdrawn from the repository", revert=False)


def _stop(rollout: Rollout, why: str, *, revert: bool | None = None) -> RolloutTransition:
    note = RolloutNote(AuditKind.ROLLOUT_STOPPED, detail={"why": why, **_totals(rollout)}, alert=True)
    is_reverting = rollout.terms.rollback_on_error if revert is None else revert
    return _begin_end(rollout, RolloutState.STOPPED, why, revert=is_reverting), (note,)


def _begin_end(rollout: Rollout, ends_as: RolloutState, why: str, *, revert: bool) -> Rollout:
    state = RolloutState.ROLLING_BACK if revert else RolloutState.ENDING
    is_reverting = revert or rollout.is_reverting
    return evolve(rollout, state=state, ends_as=ends_as, why=why, is_reverting=is_reverting)


def _is_under_way(rollout: Rollout) -> bool:
    return any(ring.under_way or ring.reverting or ring.revert_pending for ring in rollout.rings)


def _end(rollout: Rollout, now: float) -> RolloutTransition:
    ends_as = rollout.ends_as or RolloutState.STOPPED
    detail: dict[str, object] = {"state": ends_as.value, "why": rollout.why, **_totals(rollout)}
    has_bad_version = any(ring.revert_away or ring.not_reverted for ring in rollout.rings)
    note = RolloutNote(AuditKind.ROLLOUT_ENDED, detail=detail, alert=has_bad_version)
    return evolve(rollout, state=ends_as, ended_at=now), (note,)


def _totals(rollout: Rollout) -> dict[str, object]:
    names = ("confirmed", "had_it", "failed", "lost", "declined", "unknown", "reverted", "revert_away", "not_reverted")
    totals = {name: sum(getattr(ring, name) for ring in rollout.rings) for name in names}
    return {name: count for name, count in totals.items() if count}


def pause(rollout: Rollout, by: str, now: float) -> RolloutTransition:
    """Stops new commands, rings and deadlines until the rollout is resumed; updates under way continue.

    Raises:
        RolloutError: the rollout is ending or has ended.
    """
    _check_active(rollout)
    if rollout.is_paused:
        return rollout, ()
    return evolve(rollout, is_paused=True, paused_at=now), (RolloutNote(AuditKind.ROLLOUT_PAUSED, by),)


def resume(rollout: Rollout, by: str, now: float) -> RolloutTransition:
    """Ends a pause.

    Raises:
        RolloutError: the rollout is not paused.
    """
    _check_active(rollout)
    if not rollout.is_paused:
        raise RolloutError(f"{rollout.rollout_id} is not paused: it is {rollout.state.value}")
    return _running_again(rollout, now), (RolloutNote(AuditKind.ROLLOUT_RESUMED, by),)


def _running_again(rollout: Rollout, now: float) -> Rollout:
    """Lets the rollout's time go on. A pause counts as soak time, because devices run the update during it."""
    if not rollout.is_paused:
        return rollout
    paused, time = now - rollout.paused_at, rollout.time(now)
    return evolve(
        rollout,
        is_paused=False,
        paused_at=0.0,
        clock_ahead=rollout.clock_ahead + paused,
        soak_until=max(rollout.soak_until - paused, min(rollout.soak_until, time)),
    )


def on_clock_leap(rollout: Rollout, seconds: float) -> RolloutTransition:
    """Takes a leap of the wall clock out of the rollout's time; `seconds` is negative for one back."""
    paused_at = rollout.paused_at + seconds if rollout.is_paused else 0.0
    after = evolve(rollout, clock_ahead=rollout.clock_ahead + seconds, paused_at=paused_at)
    if abs(seconds) < _NOTED_LEAP or rollout.state.is_end:
        return after, ()
    return after, (RolloutNote(AuditKind.ROLLOUT_CLOCK_LEAPT, detail={"seconds": round(seconds)}),)


def on_restart(rollout: Rollout) -> Rollout:
    """Marks a soak time that only the wall clock could measure while the controller was restarted."""
    return evolve(rollout, has_restarted=True) if rollout.state is RolloutState.SOAKING else rollout


def approve(rollout: Rollout, by: Principal, now: float) -> RolloutTransition:
    """Opens the last ring, on behalf of a second operator.

    Raises:
        RolloutError: the rollout does not await approval, or `by` counts as the person who started it.
    """
    if rollout.state is not RolloutState.AWAITING_APPROVAL:
        raise RolloutError(f"{rollout.rollout_id} does not await approval: it is {rollout.state.value}")
    if rollout.starter is not None and rollout.starter.is_same_person(by, now):
        text = "with another account, which nobody of the two has made within a day"
        raise RolloutError(f"{rollout.by} started it: a second operator has to approve it, {text}")
    note = RolloutNote(AuditKind.ROLLOUT_APPROVED, by.actor, detail={"started_by": rollout.by})
    opened, notes = _open_next_ring(evolve(rollout, approved_by=by.actor), now)
    return opened, (note, *notes)


def abort(
    rollout: Rollout, by: str, now: float, *, revert: bool, reverts_now: bool = False, reason: str = ""
) -> RolloutTransition:
    """Issues no more commands; with `revert` updated devices revert, with `reverts_now` outside their windows too.

    A rollout that has ended can still be reverted, and one that reverts or has reverted can be asked again.

    Raises:
        RolloutError: the rollout has ended or is ending, and no revert was asked for.
    """
    has_left = rollout.has_open_reverts or any(ring.not_reverted for ring in rollout.rings)
    if rollout.state.is_end and rollout.is_reverting and not has_left:
        raise RolloutError(f"{rollout.rollout_id} is {rollout.state.value}: every device of it has gone back")
    if not rollout.state.is_active and not revert:
        raise RolloutError(f"{rollout.rollout_id} is {rollout.state.value}: there is nothing to abort")
    why = f"aborted by {by}" + (f": {reason}" if reason else "")
    ends_as = RolloutState.ABORTED if rollout.ends_as is None else rollout.ends_as
    ending = _begin_end(_running_again(rollout, now), ends_as, why, revert=revert)
    detail: dict[str, object] = {"rollback": revert, "now": reverts_now, "reason": reason}
    note = RolloutNote(AuditKind.ROLLOUT_ABORTED, by, detail=detail)
    return evolve(ending, ended_at=0.0, reverts_now=reverts_now), (note,)


def _check_active(rollout: Rollout) -> None:
    if not rollout.state.is_active:
        raise RolloutError(
            f"{rollout.rollout_id} is {rollout.state.value}: only an active rollout can be paused or resumed"
        )
