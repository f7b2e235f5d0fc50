"""Rollouts: start, list, pause, approve, abort."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AfterValidator, Field, StringConstraints

from controller.api.auth import CallerDep, PrincipalDep, RequestCallerDep, scope
from controller.api.context import ApprovalsDep, RolloutsDep, RolloutServices, SettingsDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import (
    Body,
    DurationText,
    NextKey,
    PageKey,
    PageLimit,
    PageOffset,
    ReasonText,
    View,
)
from controller.api.rollout_views import RolloutMemberView, RolloutView, member_view, rollout_view
from controller.domain.evolve import evolve
from controller.domain.guards.approvals import ApprovalNotAllowedError
from controller.domain.rollout.model import MemberState, Rollout, RolloutError, RolloutTerms
from controller.domain.rollout.rings import MAX_RINGS, MAX_SELECT, RolloutRing, parse_ring, parse_select
from controller.domain.rollout.window import WINDOW_PATTERN, parse_window
from controller.ports.rollouts import TargetError
from controller.service.rollout.operations import RolloutRequest, UnknownRolloutError
from controller.service.settings.rollouts import RolloutSettings
from schemas.base import MAX_NAME
from schemas.durations import parse_duration

MIN_TIMEOUT: Final = 1.0  # seconds
MAX_TIMEOUT: Final = 604_800.0  # seconds
MAX_SOAK: Final = 90 * 86_400.0  # seconds
MAX_RATE: Final = 100_000.0  # commands per minute

router = APIRouter(prefix="/rollouts", tags=["rollouts"], responses=problems(401, 422, 429, 503))
RolloutPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="id of the rollout")]


def _between(least: float, most: float) -> AfterValidator:
    def check(value: str | None) -> str | None:
        if value is not None and not least <= parse_duration(value) <= most:
            raise ValueError(f"between {least:.0f}s and {most / 86_400:.0f}d")
        return value

    return AfterValidator(check)


def _window(value: str) -> str:
    parse_window(value)
    return value


class NewRing(Body):
    """A configured ring by name, or with `select` a ring for this rollout."""

    name: Annotated[str, StringConstraints(max_length=32)]
    select: Annotated[str | None, Field(max_length=MAX_SELECT)] = None


class NewRollout(Body):
    """Target and terms of a rollout; omitted terms come from `[rollouts]` in the configuration.

    `target`: NAME/VERSION. `allow_downgrade`: also on devices with a newer version. `only`: restricts the devices.
    `window`: 02:00-05:00 in each device's time zone.
    """

    target: Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
    rings: Annotated[tuple[NewRing, ...], Field(max_length=MAX_RINGS, fail_fast=True)] = ()
    only: Annotated[str | None, Field(max_length=MAX_SELECT)] = None
    soak: Annotated[DurationText | None, _between(0.0, MAX_SOAK)] = None
    error_threshold: Annotated[float | None, Field(ge=0.0, le=1.0)] = None
    min_sample: Annotated[int | None, Field(ge=1, le=100_000)] = None
    timeout: Annotated[DurationText | None, _between(MIN_TIMEOUT, MAX_TIMEOUT)] = None
    window: Annotated[str, Field(pattern=WINDOW_PATTERN), AfterValidator(_window)] | None = None
    per_minute: Annotated[float, Field(ge=0.0, le=MAX_RATE)] = 0.0
    rollback_on_error: bool | None = None
    allow_downgrade: bool | None = None
    reason: ReasonText | None = None


class AbortBody(Body):
    """`rollback`: devices that have the target revert to their previous version, in their maintenance windows; with
    `now` at once.
    """

    rollback: bool = False
    now: bool = False
    reason: ReasonText | None = None


class RolloutPage(View):
    items: tuple[RolloutView, ...]
    next: NextKey


class RolloutMemberPage(View):
    items: tuple[RolloutMemberView, ...]
    total: int
    limit: int
    offset: int
    next: NextKey


def _refused(error: RolloutError | TargetError) -> ApiError:
    if isinstance(error, UnknownRolloutError):
        return ApiError(404, "rollout_unknown", str(error))
    if isinstance(error, TargetError):
        return ApiError(404, "target_unknown", str(error))
    return ApiError(409, "rollout_refused", str(error))


def rings_of(asked: tuple[NewRing, ...], settings: RolloutSettings) -> tuple[RolloutRing, ...]:
    """Returns the requested rings, or all configured rings if none was requested.

    Raises:
        RolloutError: an unknown name, or an invalid selection.
    """
    known = {ring.name: ring.select for ring in settings.in_order}
    wanted = asked or tuple(NewRing(name=name) for name in known)
    rings = []
    for ring in wanted:
        select = ring.select or known.get(ring.name)
        if select is None:
            names = ", ".join(known)
            raise RolloutError(f"ring {ring.name!r} is not configured ({names}): say whom it takes, NAME=SELECTION")
        rings.append(parse_ring(ring.name, select))
    return tuple(rings)


def terms_of(asked: NewRollout, settings: RolloutSettings) -> RolloutTerms:
    """Returns the requested terms, completed by the configured ones."""
    given: dict[str, Any] = {
        "soak": None if asked.soak is None else parse_duration(asked.soak),
        "error_threshold": asked.error_threshold,
        "min_sample": asked.min_sample,
        "timeout": None if asked.timeout is None else parse_duration(asked.timeout),
        "window": None if asked.window is None else parse_window(asked.window),
        "per_minute": asked.per_minute,
        "rollback_on_error": asked.rollback_on_error,
        "allow_downgrade": asked.allow_downgrade,
    }
    return evolve(settings.terms(), **{name: value for name, value in given.items() if value is not None})


@router.post("", status_code=201, dependencies=[Depends(writable), scope("rollout")], responses=problems(404, 409))
async def start(rollouts: RolloutsDep, settings: SettingsDep, caller: PrincipalDep, body: NewRollout) -> RolloutView:
    """Starts a rollout; its first ring is open when this returns."""
    terms = settings.rollouts
    try:
        asked = RolloutRequest(
            target=body.target,
            rings=rings_of(body.rings, terms),
            terms=terms_of(body, terms),
            by=caller.actor,
            starter=caller,
            reason=body.reason or "",
            only=None if body.only is None else parse_select(body.only),
            trial_rings=terms.trial_rings([(ring.name, ring.select) for ring in body.rings]) if body.rings else None,
        )
        return rollout_view(await rollouts.operations.start(asked))
    except (RolloutError, TargetError) as e:
        raise _refused(e) from e


@router.get("", dependencies=[scope("read")], responses=problems(404))
async def list_rollouts(
    rollouts: RolloutsDep,
    limit: PageLimit = 100,
    open_only: Annotated[bool, Query()] = False,
    after: PageKey = None,
) -> RolloutPage:
    """Lists rollouts, newest first; `open_only`: those that have not ended."""
    found = await rollouts.operations.store.rollouts(limit=limit, is_open=open_only, after=after)
    following = found[-1].rollout_id if len(found) == limit else None
    return RolloutPage(items=tuple(map(rollout_view, found)), next=following)


@router.get("/{rollout_id}", dependencies=[scope("read")], responses=problems(404))
async def show(rollouts: RolloutsDep, rollout_id: RolloutPath) -> RolloutView:
    """Returns a rollout."""
    return rollout_view(await _known(rollouts, rollout_id))


@router.get("/{rollout_id}/devices", dependencies=[scope("read")], responses=problems(404))
async def devices(
    rollouts: RolloutsDep,
    rollout_id: RolloutPath,
    state: MemberState | None = None,
    limit: PageLimit = 100,
    offset: PageOffset = 0,
    after: PageKey = None,
) -> RolloutMemberPage:
    """Lists the devices of a rollout by ring."""
    rollout = await _known(rollouts, rollout_id)
    word = None if state is None else state.value
    store = rollouts.operations.store
    members = await store.members(rollout_id, state=word, limit=limit, offset=offset, after=after)
    # A tally has no sum for "unknown" or "skipped" alone: each is in two places.
    names = {"unknown": ("unknown", "lost"), "skipped": ("skipped", "had_it")}.get(word or "", (word or "total",))
    total = sum(getattr(ring, name) for ring in rollout.rings for name in names)
    items = tuple(member_view(one, rollout) for one in members)
    following = members[-1].device_id if len(members) == limit else None
    return RolloutMemberPage(items=items, total=total, limit=limit, offset=offset, next=following)


async def _known(rollouts: RolloutServices, rollout_id: str) -> Rollout:
    rollout = await rollouts.operations.store.rollout(rollout_id)
    if rollout is None:
        raise ApiError(404, "rollout_unknown", f"there is no rollout {rollout_id}")
    return rollout


@router.post("/{rollout_id}/pause", dependencies=[Depends(writable), scope("rollout")], responses=problems(404, 409))
async def pause(rollouts: RolloutsDep, caller: CallerDep, rollout_id: RolloutPath) -> RolloutView:
    """Pauses a rollout; updates in progress continue."""
    try:
        return rollout_view(await rollouts.operations.pause(rollout_id, caller))
    except RolloutError as e:
        raise _refused(e) from e


@router.post("/{rollout_id}/resume", dependencies=[Depends(writable), scope("rollout")], responses=problems(404, 409))
async def resume(rollouts: RolloutsDep, caller: CallerDep, rollout_id: RolloutPath) -> RolloutView:
    """Resumes a paused rollout."""
    try:
        return rollout_view(await rollouts.operations.resume(rollout_id, caller))
    except RolloutError as e:
        raise _refused(e) from e


@router.post(
    "/{rollout_id}/approve",
    dependencies=[Depends(writable), scope("rollout", step_up=True)],
    responses=problems(404, 409),
)
async def approve(
    rollouts: RolloutsDep, approvals: ApprovalsDep, caller: RequestCallerDep, rollout_id: RolloutPath
) -> RolloutView:
    """Approves the next ring, as another person than the one who started the rollout."""
    await _known(rollouts, rollout_id)
    await approvals.follow_rollouts()
    try:
        await approvals.approve(rollout_id, caller)
    except KeyError as e:  # it never asked
        raise ApiError(409, "rollout_refused", f"{rollout_id} does not await approval") from e
    except (ApprovalNotAllowedError, RolloutError) as e:
        raise ApiError(409, "rollout_refused", str(e)) from e
    return rollout_view(await _known(rollouts, rollout_id))


@router.post("/{rollout_id}/abort", dependencies=[Depends(writable), scope("rollout")], responses=problems(404, 409))
async def abort(rollouts: RolloutsDep, caller: CallerDep, rollout_id: RolloutPath, body: AbortBody) -> RolloutView:
    """Ends a rollout. One that has ended can still be rolled back, and one that was rolled back can be asked again."""
    if body.now and not body.rollback:
        raise ApiError(409, "rollout_refused", "now is about the way back: it needs rollback")
    try:
        reason = body.reason or ""
        return rollout_view(
            await rollouts.operations.abort(
                rollout_id, caller, revert=body.rollback, reverts_now=body.now, reason=reason
            )
        )
    except RolloutError as e:
        raise _refused(e) from e
