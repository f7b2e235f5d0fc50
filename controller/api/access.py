"""Access rules of devices: plan, apply and compare templates; temporary grants."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends
from pydantic import BeforeValidator, Field, StringConstraints

from controller.api.auth import CallerDep, scope
from controller.api.context import BrokerDep, FleetDep, require_device, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import (
    Body,
    DeviceIdFilter,
    DurationText,
    OptionalTimestamp,
    PageLimit,
    ReasonText,
    UtcTimestamp,
    View,
)
from controller.domain.broker.access import AccessGrant
from controller.domain.broker.access_lint import LintSeverity
from controller.ports.policies import PolicyError
from controller.service.broker.access_operations import AccessRefusedError
from controller.service.fleet_state import FleetState
from schemas.base import DEVICE_ID_PATTERN
from schemas.durations import parse_duration

_SOURCE = "templates"

_MAX_REMARKS: Final = 200  # in one answer

router = APIRouter(prefix="/access", tags=["access"], responses=problems(401, 403, 409, 413, 422, 429, 502, 503))


class AccessTemplatesBody(Body):
    """A file of templates as text."""

    templates: Annotated[str, StringConstraints(max_length=512 * 1024)]


class ApplyTemplatesBody(AccessTemplatesBody):
    """`overwrite`: also replaces rules that Cordon did not write."""

    overwrite: bool = False


class LintFindingView(View):
    gravity: Annotated[LintSeverity, Field(validation_alias="severity")]
    device_class: str
    rule: int
    text: str


class AccessChangeView(View):
    device_id: str
    device_class: str
    state: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class AccessPlanView(View):
    """`counts` of devices by state; `items`: the first devices whose rules differ; `remarks`: the first 200."""

    ok: Annotated[bool, Field(validation_alias="is_valid")]
    devices: int
    counts: dict[str, int]
    remarks: Annotated[tuple[LintFindingView, ...], BeforeValidator(lambda remarks: remarks[:_MAX_REMARKS])]
    items: Annotated[tuple[AccessChangeView, ...], Field(validation_alias="shown")]


class NewGrant(Body):
    """A permission in addition to the template, and its duration."""

    device_id: Annotated[str, StringConstraints(pattern=DEVICE_ID_PATTERN)]
    action: Literal["publish", "subscribe", "all"]
    topic: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    duration: Annotated[DurationText, Field(alias="for", description="90s, 10m, 2h, 1d")]
    reason: ReasonText


class GrantView(View):
    """`lasts`: it has not ended; `in_force`: the device is not contained either."""

    grant_id: str
    device_id: str
    action: str
    topic: str
    reason: str
    by: str
    granted_at: UtcTimestamp
    expires_at: UtcTimestamp
    ended_at: OptionalTimestamp
    lasts: bool
    in_force: bool


class GrantList(View):
    items: tuple[GrantView, ...]


async def _grant(fleet: FleetState, grant: AccessGrant, ended_at: float | None) -> GrantView:
    device = await fleet.find(grant.device_id)
    lasts = ended_at is None and grant.expires_at > fleet.clock.now()
    in_force = lasts and device is not None and device.case is None
    return GrantView.of(grant, ended_at=ended_at, lasts=lasts, in_force=in_force)


def _refused(error: PolicyError | AccessRefusedError) -> ApiError:
    code = "template_mistake" if isinstance(error, PolicyError) else "access_refused"
    return ApiError(422 if isinstance(error, PolicyError) else 409, code, str(error))


@router.post("/plan", dependencies=[scope("read")], responses=problems(413))
async def plan(broker: BrokerDep, given: AccessTemplatesBody) -> AccessPlanView:
    """Returns what these templates would change; writes nothing."""
    try:
        return AccessPlanView.of(await broker.access.plan(given.templates))
    except PolicyError as e:
        raise _refused(e) from e


@router.post("/apply", dependencies=[scope("policy"), Depends(writable)], responses=problems(413))
async def apply(broker: BrokerDep, caller: CallerDep, given: ApplyTemplatesBody) -> AccessPlanView:
    """Puts the templates in force and writes the differences; contained devices get theirs when they are released."""
    try:
        return AccessPlanView.of(await broker.access.apply(given.templates, caller, overwrite=given.overwrite))
    except (PolicyError, AccessRefusedError) as e:
        raise _refused(e) from e


@router.post("/plan-withdraw", dependencies=[scope("read")])
async def plan_withdraw(broker: BrokerDep, _caller: CallerDep) -> AccessPlanView:
    """Returns what withdrawing the templates in force would change; writes nothing."""
    try:
        return AccessPlanView.of(await broker.access.plan_withdrawal())
    except AccessRefusedError as e:
        raise _refused(e) from e


@router.post("/withdraw", dependencies=[scope("policy"), Depends(writable)])
async def withdraw(broker: BrokerDep, caller: CallerDep) -> AccessPlanView:
    """Withdraws the templates in force: removes the rules written for them; grants stay."""
    try:
        return AccessPlanView.of(await broker.access.withdraw(caller))
    except AccessRefusedError as e:
        raise _refused(e) from e


@router.get("/diff", dependencies=[scope("read")])
async def diff(broker: BrokerDep) -> AccessPlanView:
    """Compares the rules at the broker with the templates and grants in force."""
    return AccessPlanView.of(await broker.access.diff())


@router.get("/grants", dependencies=[scope("read")])
async def list_grants(
    fleet: FleetDep, broker: BrokerDep, device_id: DeviceIdFilter = None, limit: PageLimit = 200
) -> GrantList:
    """Lists grants, newest first, ended ones included."""
    found = await broker.access.grants(device_id, limit)
    return GrantList(items=tuple([await _grant(fleet, one.grant, one.ended_at) for one in found]))


@router.post("/grants", dependencies=[scope("policy"), Depends(writable)], responses=problems(404))
async def grant(fleet: FleetDep, broker: BrokerDep, caller: CallerDep, wanted: NewGrant) -> GrantView:
    """Adds a temporary permission."""
    await require_device(fleet, wanted.device_id)
    seconds = parse_duration(wanted.duration)
    try:
        made: AccessGrant = await broker.access.grant(
            wanted.device_id, wanted.action, wanted.topic, seconds=seconds, reason=wanted.reason, actor=caller
        )
    except AccessRefusedError as e:
        raise _refused(e) from e
    return await _grant(fleet, made, None)


@router.delete("/grants/{grant_id}", dependencies=[scope("policy"), Depends(writable)])
async def revoke(fleet: FleetDep, broker: BrokerDep, caller: CallerDep, grant_id: str) -> GrantView:
    """Ends a grant."""
    try:
        ended = await broker.access.revoke(grant_id, caller)
    except AccessRefusedError as e:
        raise _refused(e) from e
    return await _grant(fleet, ended, fleet.clock.now())
