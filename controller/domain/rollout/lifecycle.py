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
    is_trial: bool = False,
    starter: Principal | None = None,
) -> tuple[Rollout, tuple[RolloutMember, ...]]:
    """Returns a new rollout with its first ring open, and its devices.

    `rings`: names and device ids. A rollout of a single ring needs approval first, unless `is_trial` says that the
    ring is a test ring and not the fleet.

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
    rollout = evolve(rollout, opened_at=now, next_command_at=now)
    if terms.approval and len(rings) == 1 and not is_trial:
        rollout = _await_approval(evolve(rollout, ring=-1), now)
    return rollout, members


def requires_zero_errors(rollout: Rollout, ring: int) -> bool:
    """Whether the ring may have no error at all: the first ring, if others follow."""
    return ring == 0 and len(rollout.rings) > 1


def stop_reason(rollout: Rollout) -> str:
    """Returns why the results so far, of this ring and the earlier ones, forbid to continue; empty if they do not."""
    terms = rollout.terms
    for number, ring in enumerate(rollout.rings[: rollout.ring + 1]):
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


def may_issue_command(rollout: Rollout, now: float) -> bool:
    """Whether a device of the current ring may be updated now."""
    return (
        rollout.state is RolloutState.RUNNING
        and not rollout.is_paused
        and rollout.current_ring.under_way < max_under_way(rollout)
        and now >= rollout.next_command_at
        and not stop_reason(rollout)
    )


def with_command_issued(rollout: Rollout, now: float) -> Rollout:
    """Returns the rollout after one more command, which counts against the rate limit."""
    if not rollout.terms.per_minute:
        return rollout
    base = max(rollout.next_command_at, now - MAX_CATCH_UP)
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
    if rollout.state.is_active:
        reason = stop_reason(rollout)
        if reason:
            return _stop(rollout, reason)
    match rollout.state:
        case RolloutState.RUNNING:
            return _finish_ring(rollout, now)
        case RolloutState.SOAKING:
            return _finish_soak(rollout, now)
        case RolloutState.AWAITING_APPROVAL if now >= rollout.approval_requested_at + APPROVAL_TIMEOUT:
            return _stop(rollout, "no second operator approved it in time")
        case RolloutState.ENDING | RolloutState.ROLLING_BACK if not has_pending_reverts and not _is_under_way(rollout):
            return _end(rollout, now)
        case _:
            return rollout, ()


def _finish_ring(rollout: Rollout, now: float) -> RolloutTransition:
    ring = rollout.current_ring
    if ring.waiting or ring.under_way:
        return rollout, ()
    if not ring.confirmed and not ring.had_it:
        return _stop(rollout, f"ring {ring.name}: no device could be updated, so it proves nothing")
    detail: dict[str, object] = {"ring": ring.name, "confirmed": ring.confirmed, "errors": ring.errors}
    note = RolloutNote(AuditKind.ROLLOUT_RING_COMPLETED, detail=detail)
    if rollout.is_last_ring:
        ended = evolve(rollout, state=RolloutState.COMPLETED, ended_at=now, why="")
        return ended, (note, RolloutNote(AuditKind.ROLLOUT_COMPLETED, detail=_totals(rollout)))
    soak = rollout.terms.soak
    return evolve(rollout, state=RolloutState.SOAKING, soak_until=now + soak, why=""), (note,)


def _finish_soak(rollout: Rollout, now: float) -> RolloutTransition:
    if now < rollout.soak_until or rollout.is_paused:
        return rollout, ()
    ring = rollout.current_ring
    if requires_zero_errors(rollout, rollout.ring) and ring.stale:
        if now < rollout.soak_until + rollout.terms.timeout:
            return rollout, ()
        return _stop(rollout, f"ring {ring.name}: {ring.stale} devices became silent after the update")
    following = rollout.rings[rollout.ring + 1].name
    is_next_last = rollout.ring + 1 == len(rollout.rings) - 1
    if is_next_last and rollout.terms.approval and not rollout.approved_by:
        return _await_approval(rollout, now), (
            RolloutNote(AuditKind.ROLLOUT_APPROVAL_REQUESTED, detail={"ring": following}, alert=True),
        )
    return _open_next_ring(rollout, now)


def _await_approval(rollout: Rollout, now: float) -> Rollout:
    following = rollout.rings[rollout.ring + 1].name
    why = f"a second operator has to approve before ring {following}: cordon rollout approve {rollout.rollout_id}"
    return evolve(rollout, state=RolloutState.AWAITING_APPROVAL, approval_requested_at=now, why=why)


def _open_next_ring(rollout: Rollout, now: float) -> RolloutTransition:
    opened = evolve(rollout, state=RolloutState.RUNNING, ring=rollout.ring + 1, opened_at=now, why="")
    ring = opened.current_ring
    return opened, (RolloutNote(AuditKind.ROLLOUT_RING_OPENED, detail={"ring": ring.name, "devices": ring.total}),)


def _stop(rollout: Rollout, why: str) -> RolloutTransition:
    note = RolloutNote(AuditKind.ROLLOUT_STOPPED, detail={"why": why, **_totals(rollout)}, alert=True)
    return _begin_end(rollout, RolloutState.STOPPED, why, revert=rollout.terms.rollback_on_error), (note,)


def _begin_end(rollout: Rollout, ends_as: RolloutState, why: str, *, revert: bool) -> Rollout:
    state = RolloutState.ROLLING_BACK if revert else RolloutState.ENDING
    is_reverting = revert or rollout.is_reverting
    return evolve(rollout, state=state, ends_as=ends_as, why=why, is_reverting=is_reverting, is_paused=False)


def _is_under_way(rollout: Rollout) -> bool:
    return any(ring.under_way or ring.reverting for ring in rollout.rings)


def _end(rollout: Rollout, now: float) -> RolloutTransition:
    ends_as = rollout.ends_as or RolloutState.STOPPED
    note = RolloutNote(AuditKind.ROLLOUT_ENDED, detail={"state": ends_as.value, "why": rollout.why, **_totals(rollout)})
    return evolve(rollout, state=ends_as, ended_at=now), (note,)


def _totals(rollout: Rollout) -> dict[str, object]:
    names = ("confirmed", "had_it", "failed", "lost", "declined", "unknown", "reverted", "not_reverted")
    totals = {name: sum(getattr(ring, name) for ring in rollout.rings) for name in names}
    return {name: count for name, count in totals.items() if count}


def pause(rollout: Rollout, by: str) -> RolloutTransition:
    """Stops new commands and rings until the rollout is resumed; updates under way continue.

    Raises:
        RolloutError: the rollout is ending or has ended.
    """
    _check_active(rollout)
    if rollout.is_paused:
        return rollout, ()
    return evolve(rollout, is_paused=True), (RolloutNote(AuditKind.ROLLOUT_PAUSED, by),)


def resume(rollout: Rollout, by: str) -> RolloutTransition:
    """Ends a pause.

    Raises:
        RolloutError: the rollout is not paused.
    """
    _check_active(rollout)
    if not rollout.is_paused:
        raise RolloutError(f"{rollout.rollout_id} is not paused: it is {rollout.state.value}")
    return evolve(rollout, is_paused=False), (RolloutNote(AuditKind.ROLLOUT_RESUMED, by),)


def approve(rollout: Rollout, by: Principal, now: float) -> RolloutTransition:
    """Opens the last ring, on behalf of a second operator.

    Raises:
        RolloutError: the rollout does not await approval, or `by` counts as the person who started it.
    """
    if rollout.state is not RolloutState.AWAITING_APPROVAL:
        raise RolloutError(f"{rollout.rollout_id} does not await approval: it is {rollout.state.value}")
    if rollout.starter is not None and rollout.starter.is_same_person(by, now):
        text = "a token and the tokens made with it count as one person for a day"
        raise RolloutError(f"{rollout.by} started it: a second operator has to approve it, with another token; {text}")
    note = RolloutNote(AuditKind.ROLLOUT_APPROVED, by.actor, detail={"started_by": rollout.by})
    opened, notes = _open_next_ring(evolve(rollout, approved_by=by.actor), now)
    return opened, (note, *notes)


def abort(rollout: Rollout, by: str, *, revert: bool, reason: str = "") -> RolloutTransition:
    """Issues no more commands; with `revert` updated devices revert. A rollout that has ended can still be reverted.

    Raises:
        RolloutError: the rollout has ended, and no revert was asked for or one was made already.
    """
    if not rollout.state.is_active and (not revert or rollout.is_reverting):
        raise RolloutError(f"{rollout.rollout_id} is {rollout.state.value}: there is nothing to abort")
    why = f"aborted by {by}" + (f": {reason}" if reason else "")
    ends_as = RolloutState.ABORTED if rollout.ends_as is None else rollout.ends_as
    ending = evolve(_begin_end(rollout, ends_as, why, revert=revert), ended_at=0.0)
    return ending, (RolloutNote(AuditKind.ROLLOUT_ABORTED, by, detail={"rollback": revert, "reason": reason}),)


def _check_active(rollout: Rollout) -> None:
    if not rollout.state.is_active:
        raise RolloutError(
            f"{rollout.rollout_id} is {rollout.state.value}: only an active rollout can be paused or resumed"
        )
