"""Decides how a rollout as a whole goes on: which ring, when it waits, when it stops itself, how it ends. Pure.

What one device does to it is in `controller.domain.rollout.member`.
"""

from collections.abc import Sequence
from typing import Final

from controller.domain.evolve import evolve
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

APPROVAL_PATIENCE: Final = 7 * 86_400.0  # seconds in which a second operator may approve
RATE_SLACK: Final = 1.0  # seconds of orders that may be caught up at once
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
) -> tuple[Rollout, tuple[RolloutMember, ...]]:
    """A new rollout, its first ring open.

    One with a single ring has to be approved before anything, unless `is_trial`: that ring is one of those meant for
    trying, not the fleet.

    Raises:
        RolloutError: no devices at all, too many, or a ring without any: it would prove nothing.
    """
    sizes = [len(devices) for _, devices in rings]
    if not sum(sizes):
        raise RolloutError(f"there is no device that {target.name} {target.version} could go to")
    if sum(sizes) > MAX_MEMBERS:
        raise RolloutError(f"a rollout takes at most {MAX_MEMBERS} devices")
    empty = [name for (name, _), size in zip(rings, sizes, strict=True) if not size]
    if empty:
        raise RolloutError(f"ring {empty[0]} is empty: it would prove nothing; give it devices, or leave it out")
    tallies = tuple(RingTally(name, pending=size) for (name, _), size in zip(rings, sizes, strict=True))
    members = tuple(
        RolloutMember(one, ring, updated_at=now) for ring, (_, devices) in enumerate(rings) for one in devices
    )
    rollout = Rollout(
        rollout_id, target, terms, tallies, by, reason, created_at=now, rule=rule, opened_at=now, next_order_at=now
    )
    if terms.approval and len(rings) == 1 and not is_trial:
        rollout = _asks(evolve(rollout, ring=-1), now)
    return rollout, members


def is_strict(rollout: Rollout, ring: int) -> bool:
    """Whether the ring has to be green without exception: the first one, where others follow."""
    return ring == 0 and len(rollout.rings) > 1


def broken_ring(rollout: Rollout) -> str:
    """Why what has been seen so far forbids to go on; empty if it does not. Rings that were passed count too."""
    terms = rollout.terms
    for number, ring in enumerate(rollout.rings[: rollout.ring + 1]):
        if is_strict(rollout, number):
            if ring.errors:
                return f"ring {ring.name} is not green: {ring.errors} of {ring.sample} went wrong"
            continue
        is_over = not ring.waiting and not ring.under_way
        if (is_over or ring.sample >= terms.min_sample) and ring.error_rate > terms.error_threshold:
            return (
                f"ring {ring.name}: {ring.errors} of {ring.sample} that received it went wrong"
                f" ({ring.error_rate:.0%}, allowed {terms.error_threshold:.0%})"
            )
    return ""


def most_under_way(rollout: Rollout) -> int:
    """How many devices may be at it at once: no more than the sample that is asked for, before as many have shown that
    it works; so that a bad update meets few, however fast orders go out.
    """
    ring = rollout.now_ring
    return max(1, rollout.terms.min_sample, ring.sample)


def may_order(rollout: Rollout, now: float) -> bool:
    """Whether a device of the present ring may be ordered now."""
    return (
        rollout.state is RolloutState.RUNNING
        and not rollout.is_paused
        and rollout.now_ring.under_way < most_under_way(rollout)
        and now >= rollout.next_order_at
        and not broken_ring(rollout)
    )


def ordered(rollout: Rollout, now: float) -> Rollout:
    """One order more has gone out: when the next one may."""
    if not rollout.terms.per_minute:
        return rollout
    base = max(rollout.next_order_at, now - RATE_SLACK)
    return evolve(rollout, next_order_at=base + _MINUTE / rollout.terms.per_minute)


def settle(rollout: Rollout, now: float, *, left: bool = False) -> RolloutTransition:
    """Go on as far as what is known at `now` allows; the same values settle to the same ones again.

    `left`: there are devices that have to be ordered back and were not yet.
    """
    notes: list[RolloutNote] = []
    while True:
        after, said = _once(rollout, now, left)
        notes += said
        # Who has to go back is found out first: until then `left` does not count them.
        if after is rollout or after.is_reverting is not rollout.is_reverting:
            return after, tuple(notes)
        rollout = after


def _once(rollout: Rollout, now: float, left: bool) -> RolloutTransition:
    if rollout.state.goes_on:
        trouble = broken_ring(rollout)
        if trouble:
            return _stop(rollout, trouble)
    match rollout.state:
        case RolloutState.RUNNING:
            return _ring_over(rollout, now)
        case RolloutState.SOAKING:
            return _soaked(rollout, now)
        case RolloutState.AWAITING_APPROVAL if now >= rollout.asked_at + APPROVAL_PATIENCE:
            return _stop(rollout, "nobody approved it in time")
        case RolloutState.ENDING | RolloutState.ROLLING_BACK if not left and not _is_under_way(rollout):
            return _end(rollout, now)
        case _:
            return rollout, ()


def _ring_over(rollout: Rollout, now: float) -> RolloutTransition:
    ring = rollout.now_ring
    if ring.waiting or ring.under_way:
        return rollout, ()
    if not ring.confirmed and not ring.had_it:
        return _stop(rollout, f"no device of ring {ring.name} could be updated: it proves nothing")
    detail: dict[str, object] = {"ring": ring.name, "confirmed": ring.confirmed, "errors": ring.errors}
    note = RolloutNote("rollout ring done", detail=detail)
    if rollout.is_last_ring:
        ended = evolve(rollout, state=RolloutState.COMPLETED, ended_at=now, why="")
        return ended, (note, RolloutNote("rollout completed", detail=_sums(rollout)))
    soak = rollout.terms.soak
    return evolve(rollout, state=RolloutState.SOAKING, soak_until=now + soak, why=""), (note,)


def _soaked(rollout: Rollout, now: float) -> RolloutTransition:
    if now < rollout.soak_until or rollout.is_paused:
        return rollout, ()
    ring = rollout.now_ring
    if is_strict(rollout, rollout.ring) and ring.silent:
        if now < rollout.soak_until + rollout.terms.timeout:
            return rollout, ()
        return _stop(rollout, f"ring {ring.name}: {ring.silent} devices fell silent after the update")
    following = rollout.rings[rollout.ring + 1].name
    is_asked = rollout.ring + 1 == len(rollout.rings) - 1 and rollout.terms.approval and not rollout.approved_by
    if is_asked:
        return _asks(rollout, now), (RolloutNote("rollout awaits approval", detail={"ring": following}, alert=True),)
    return _open_next(rollout, now)


def _asks(rollout: Rollout, now: float) -> Rollout:
    following = rollout.rings[rollout.ring + 1].name
    why = f"a second operator has to approve before ring {following}: cordon rollout approve {rollout.rollout_id}"
    return evolve(rollout, state=RolloutState.AWAITING_APPROVAL, asked_at=now, why=why)


def _open_next(rollout: Rollout, now: float) -> RolloutTransition:
    opened = evolve(rollout, state=RolloutState.RUNNING, ring=rollout.ring + 1, opened_at=now, why="")
    ring = opened.now_ring
    return opened, (RolloutNote("rollout ring opened", detail={"ring": ring.name, "devices": ring.total}),)


def _stop(rollout: Rollout, why: str) -> RolloutTransition:
    note = RolloutNote("rollout stopped itself", detail={"why": why, **_sums(rollout)}, alert=True)
    return _leave(rollout, RolloutState.STOPPED, why, revert=rollout.terms.rollback_on_error), (note,)


def _leave(rollout: Rollout, ends_as: RolloutState, why: str, *, revert: bool) -> Rollout:
    state = RolloutState.ROLLING_BACK if revert else RolloutState.ENDING
    return evolve(
        rollout, state=state, ends_as=ends_as, why=why, is_reverting=revert or rollout.is_reverting, is_paused=False
    )


def _is_under_way(rollout: Rollout) -> bool:
    return any(ring.under_way or ring.reverting for ring in rollout.rings)


def _end(rollout: Rollout, now: float) -> RolloutTransition:
    ends_as = rollout.ends_as or RolloutState.STOPPED
    note = RolloutNote("rollout over", detail={"state": ends_as.value, "why": rollout.why, **_sums(rollout)})
    return evolve(rollout, state=ends_as, ended_at=now), (note,)


def _sums(rollout: Rollout) -> dict[str, object]:
    names = ("confirmed", "had_it", "failed", "lost", "declined", "unknown", "reverted", "not_reverted")
    sums = {name: sum(getattr(ring, name) for ring in rollout.rings) for name in names}
    return {name: count for name, count in sums.items() if count}


def pause(rollout: Rollout, by: str) -> RolloutTransition:
    """Order nothing more and open no ring until it is resumed; what is under way goes on.

    Raises:
        RolloutError: it does not go on anyway.
    """
    _has_to_go_on(rollout)
    if rollout.is_paused:
        return rollout, ()
    return evolve(rollout, is_paused=True), (RolloutNote("rollout paused", by),)


def resume(rollout: Rollout, by: str) -> RolloutTransition:
    """End a pause.

    Raises:
        RolloutError: it is not paused.
    """
    _has_to_go_on(rollout)
    if not rollout.is_paused:
        raise RolloutError(f"{rollout.rollout_id} is not paused: it is {rollout.state.value}")
    return evolve(rollout, is_paused=False), (RolloutNote("rollout resumed", by),)


def approve(rollout: Rollout, by: str, now: float) -> RolloutTransition:
    """Let the last ring begin; only another one than who started it may say so, and only once the rings before it have
    been seen.

    Raises:
        RolloutError: it does not wait for that, or `by` started it.
    """
    if rollout.state is not RolloutState.AWAITING_APPROVAL:
        raise RolloutError(f"{rollout.rollout_id} does not wait for approval: it is {rollout.state.value}")
    if by == rollout.by:
        raise RolloutError(f"{by} started it: a second operator, with a token of their own, has to approve")
    note = RolloutNote("rollout approved", by, detail={"started_by": rollout.by})
    opened, said = _open_next(evolve(rollout, approved_by=by), now)
    return opened, (note, *said)


def abort(rollout: Rollout, by: str, *, revert: bool, reason: str = "") -> RolloutTransition:
    """Order nothing more; with `revert` those that have it go back. One that has ended can still be reverted.

    Raises:
        RolloutError: it is over already, and nothing is asked for that could still be done.
    """
    is_over = not rollout.state.goes_on
    if is_over and (not revert or rollout.is_reverting):
        raise RolloutError(f"{rollout.rollout_id} is {rollout.state.value}: there is nothing to abort")
    why = f"aborted by {by}" + (f": {reason}" if reason else "")
    ends_as = RolloutState.ABORTED if rollout.ends_as is None else rollout.ends_as
    left = _leave(rollout, ends_as, why, revert=revert)
    return evolve(left, ended_at=0.0), (
        RolloutNote("rollout aborted", by, detail={"rollback": revert, "reason": reason}),
    )


def _has_to_go_on(rollout: Rollout) -> None:
    if not rollout.state.goes_on:
        raise RolloutError(f"{rollout.rollout_id} is {rollout.state.value}: it does not go on anyway")
