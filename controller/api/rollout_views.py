"""Views of rollouts and their devices."""

from typing import Annotated, Any

from pydantic import AliasPath, BeforeValidator, Field

from controller.api.fields import OptionalTimestamp, UtcTimestamp, View
from controller.domain.rollout.lifecycle import requires_zero_errors
from controller.domain.rollout.model import MemberState, RevertState, Rollout, RolloutMember, RolloutState


def _from(*path: str) -> Any:
    return Field(validation_alias=AliasPath(*path))


class RingView(View):
    """Device counts of a ring. `lost`: received the update and became silent; `had_it`: already had the version;
    `sample`: received the update and finished; `errors`: `failed` and `lost`. `must_be_green`: no error is tolerated.
    `revert_pending`: wait for their maintenance window to go back; `revert_away`: are ordered back when they are heard.
    """

    name: str
    devices: Annotated[int, _from("total")]
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
    revert_pending: int
    revert_away: int
    reverting: int
    reverted: int
    not_reverted: int
    sample: int
    errors: int
    error_rate: float
    must_be_green: bool


class RolloutTermsView(View):
    """The terms of a rollout; durations in seconds, `per_minute` 0 for no limit."""

    soak: float
    error_threshold: float
    min_sample: int
    timeout: float
    window: Annotated[str, BeforeValidator(lambda window: "" if window is None else str(window))]
    per_minute: float
    rollback_on_error: bool
    approval: bool
    allow_downgrade: bool


class RolloutView(View):
    """A rollout. `ring` is the current one; `why` explains the state. `soak_by_wall_clock`: the controller was
    restarted during the soak time, so a leap of its clock meanwhile was not seen. `remarks`: versions at the start that
    are newer than the target, or cannot be ordered against it.
    """

    rollout_id: str
    target: Annotated[str, _from("target", "path")]
    name: Annotated[str, _from("target", "name")]
    version: Annotated[str, _from("target", "version")]
    state: RolloutState
    paused: Annotated[bool, _from("is_paused")]
    ring: Annotated[str, _from("current_ring", "name")]
    why: str
    by: str
    reason: str
    rule: str
    approved_by: str
    created_at: UtcTimestamp
    soak_until: OptionalTimestamp
    soak_by_wall_clock: Annotated[bool, _from("has_restarted")]
    ended_at: OptionalTimestamp
    rolling_back: Annotated[bool, _from("is_reverting")]
    terms: RolloutTermsView
    remarks: tuple[str, ...]
    rings: tuple[RingView, ...]


class RolloutMemberView(View):
    """A device of a rollout. `phase` and `percent` as the device reported them; `before`: its previous version."""

    device_id: str
    ring: str
    state: MemberState
    phase: str
    percent: int
    before: Annotated[str, _from("previous_version")]
    reason: str
    received: Annotated[bool, _from("was_received")]
    back: Annotated[RevertState, _from("revert")]
    command_id: str
    back_command_id: Annotated[str, _from("revert_command_id")]
    updated_at: UtcTimestamp


def rollout_view(rollout: Rollout) -> RolloutView:
    is_soaking = rollout.state is RolloutState.SOAKING
    return RolloutView.of(
        rollout,
        soak_until=rollout.soak_until + rollout.clock_ahead if is_soaking else None,
        rings=tuple(
            RingView.of(ring, must_be_green=requires_zero_errors(rollout, number))
            for number, ring in enumerate(rollout.rings)
        ),
    )


def member_view(member: RolloutMember, rollout: Rollout) -> RolloutMemberView:
    return RolloutMemberView.of(member, ring=rollout.rings[member.ring].name)
