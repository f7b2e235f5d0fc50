"""How rollouts and their devices look from outside."""

from typing import Any

from controller.api.fields import UtcTimestamp, View, at, moment
from controller.domain.rollout.lifecycle import requires_zero_errors
from controller.domain.rollout.model import MemberState, RevertState, RingTally, Rollout, RolloutMember, RolloutState


class RingView(View):
    """A ring in numbers. `lost`: received it and fell silent; `had_it`: had that version before; `sample`: received it
    and ended; `errors` of these `failed` or are `lost`. With `must_be_green` not one may go wrong.
    """

    name: str
    devices: int
    pending: int
    away: int
    ordered: int
    received: int
    claimed: int
    confirmed: int
    failed: int
    lost: int
    declined: int
    unknown: int
    skipped: int
    had_it: int
    reverting: int
    reverted: int
    not_reverted: int
    sample: int
    errors: int
    error_rate: float
    must_be_green: bool

    @classmethod
    def of(cls, ring: RingTally, *, must_be_green: bool) -> "RingView":
        """The ring as it is now."""
        own = {name: getattr(ring, name) for name in cls.model_fields if name not in ("devices", "must_be_green")}
        return cls(devices=ring.total, must_be_green=must_be_green, **own)


class RolloutTermsView(View):
    """On which terms it goes out; durations in seconds, `per_minute` 0 for no limit."""

    soak: float
    error_threshold: float
    min_sample: int
    timeout: float
    window: str
    per_minute: float
    rollback_on_error: bool
    approval: bool


class RolloutView(View):
    """A rollout. `ring` is the one whose turn it is; `why` says what it waits for, or why it ended."""

    rollout_id: str
    target: str
    name: str
    version: str
    state: RolloutState
    paused: bool
    ring: str
    why: str
    by: str
    reason: str
    rule: str
    approved_by: str
    created_at: UtcTimestamp
    soak_until: UtcTimestamp | None
    ended_at: UtcTimestamp | None
    rolling_back: bool
    terms: RolloutTermsView
    rings: tuple[RingView, ...]

    @classmethod
    def of(cls, rollout: Rollout) -> "RolloutView":
        """The rollout as it is now."""
        terms = rollout.terms
        own: dict[str, Any] = {name: getattr(terms, name) for name in RolloutTermsView.model_fields if name != "window"}
        return cls(
            rollout_id=rollout.rollout_id,
            target=rollout.target.path,
            name=rollout.target.name,
            version=rollout.target.version,
            state=rollout.state,
            paused=rollout.is_paused,
            ring=rollout.current_ring.name,
            why=rollout.why,
            by=rollout.by,
            reason=rollout.reason,
            rule=rollout.rule,
            approved_by=rollout.approved_by,
            created_at=at(rollout.created_at),
            soak_until=moment(rollout.soak_until) if rollout.state is RolloutState.SOAKING else None,
            ended_at=moment(rollout.ended_at) if rollout.ended_at else None,
            rolling_back=rollout.is_reverting,
            terms=RolloutTermsView(window="" if terms.window is None else str(terms.window), **own),
            rings=tuple(
                RingView.of(ring, must_be_green=requires_zero_errors(rollout, number))
                for number, ring in enumerate(rollout.rings)
            ),
        )


class RolloutMemberView(View):
    """A device of a rollout. `phase` and `percent` are its own word; `before` the version it had."""

    device_id: str
    ring: str
    state: MemberState
    phase: str
    percent: int
    before: str
    reason: str
    received: bool
    back: RevertState
    command_id: str
    back_command_id: str
    updated_at: UtcTimestamp

    @classmethod
    def of(cls, member: RolloutMember, rollout: Rollout) -> "RolloutMemberView":
        """The device as it is now."""
        return cls(
            device_id=member.device_id,
            ring=rollout.rings[member.ring].name,
            state=member.state,
            phase=member.phase,
            percent=member.percent,
            before=member.previous_version,
            reason=member.reason,
            received=member.was_received,
            back=member.revert,
            command_id=member.command_id,
            back_command_id=member.revert_command_id,
            updated_at=at(member.updated_at),
        )
