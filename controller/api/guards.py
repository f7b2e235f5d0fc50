"""The guards: blast radius, and held containments, which an operator approves or dismisses."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from controller.api.approval_views import request_view
from controller.api.auth import CallerDep, PrincipalDep, scope
from controller.api.context import ContainmentDep, ContainmentServices, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import (
    Body,
    NextKey,
    PageKey,
    PageLimit,
    PageOffset,
    ReasonText,
    SecondsAsText,
    UtcTimestamp,
    View,
)
from controller.api.quarantine_views import BulkDecisionView, answers, decide, decision_view
from controller.api.waiting import WaitDep
from controller.domain.device import Device, HoldReason
from controller.domain.guards.approvals import MAX_TARGETS, ApprovalKind, ApprovalRequest
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import UnknownRowError
from controller.service.containment.operator_actions import OperatorRequest, is_held, place_of_held
from controller.service.fleet_state import FleetState
from schemas.base import DEVICE_ID_PATTERN

MAX_NAMED: Final = 1000  # devices in one request, unless `all`
HeldDeviceId = Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]
router = APIRouter(prefix="/guard", tags=["guard"], responses=problems(401, 403, 422, 429, 503))


class HeldContainmentView(View):
    """A containment that a policy requires and a guard holds back."""

    device_id: str
    why: HoldReason
    level: ContainmentLevel
    causes: tuple[str, ...]
    since: UtcTimestamp
    protected: str


class GuardPoolView(View):
    """New devices, by what admitted them (`token:ID`, or `new`): they have the same limit, apart from the others."""

    pool: str
    contained: int
    waiting: int


class GuardView(View):
    """Devices `contained` within `window`, of at most `limit`; while one waits, further containments wait too.

    `left_by_hand`: how many more devices the caller may contain without a second operator.
    """

    fleet: int
    contained: int
    limit: int
    max_devices: int | None
    max_percent: float
    window: SecondsAsText
    reached: bool
    left_by_hand: int
    waiting: int
    pools: tuple[GuardPoolView, ...]
    items: tuple[HeldContainmentView, ...]
    next: NextKey


class HeldDeviceSelection(Body):
    """The named devices, or all that wait because of the blast radius."""

    devices: Annotated[tuple[HeldDeviceId, ...], Field(max_length=MAX_NAMED, fail_fast=True)] = ()
    all: bool = False
    reason: ReasonText


class GuardApprovalBody(HeldDeviceSelection):
    """`even_protected`: includes protected devices, if they are named."""

    even_protected: bool = False


def _waiting(fleet: FleetState, device: Device) -> HeldContainmentView:
    pending = device.pending
    assert pending is not None
    protected = fleet.guards.protection.protection_reason(device)
    return HeldContainmentView.of(pending, device_id=device.device_id, protected=protected)


async def _selected(containment: ContainmentServices, selection: HeldDeviceSelection) -> tuple[str, ...]:
    if selection.all == bool(selection.devices):
        raise ApiError(409, "selection", "name devices, or set `all` for those held by the blast radius")
    if selection.all:
        held = await containment.operators.held_devices(MAX_TARGETS, why=HoldReason.BLAST_RADIUS)
        return tuple(one.device_id for one in held.first)
    waiting = {one.device_id for one in await containment.fleet.find_all(selection.devices) if is_held(one)}
    not_held = [one for one in selection.devices if one not in waiting]
    if not_held:
        raise ApiError(409, "not_waiting", f"nothing waits for {', '.join(not_held[:5])}: see `cordon guard status`")
    return tuple(dict.fromkeys(selection.devices))


@router.get("", dependencies=[scope("read")], responses=problems(404))
async def show_guard(
    containment: ContainmentDep,
    caller: PrincipalDep,
    limit: PageLimit = 100,
    offset: PageOffset = 0,
    after: PageKey = None,
) -> GuardView:
    """Returns the blast radius and the held containments, oldest first."""
    fleet, now = containment.fleet, containment.fleet.clock.now()
    radius = fleet.guards.radius
    begin = (0.0, "") if after is None else _place_of(after)
    held = await containment.operators.held_devices(offset + limit + 1, after=begin)
    page = held.first[offset : offset + limit]
    has_more = len(held.first) > offset + len(page)
    return GuardView(
        fleet=fleet.size,
        contained=radius.used(now),
        limit=radius.bounds.limit(fleet.size),
        max_devices=radius.bounds.max_devices,
        max_percent=radius.bounds.max_percent,
        window=radius.bounds.window,
        reached=radius.waiting > 0,
        pools=tuple(
            GuardPoolView(pool=pool, contained=one.used(now), waiting=one.waiting)
            for pool, one in sorted(fleet.guards.pools.items())
        ),
        left_by_hand=containment.operators.remaining_allowance(caller),
        waiting=held.total,
        items=tuple(_waiting(containment.fleet, one) for one in page),
        next="{}/{}".format(*place_of_held(page[-1])) if has_more and page else None,
    )


def _place_of(key: str) -> tuple[float, str]:
    since, _, device_id = key.partition("/")
    try:
        return float(since), device_id
    except ValueError as e:
        raise UnknownRowError(key) from e


@router.post(
    "/approve",
    dependencies=[scope("contain", step_up=True), Depends(writable)],
    responses={**problems(409), 202: {"model": BulkDecisionView, "description": "a second person has to approve"}},
)
async def approve(
    containment: ContainmentDep, caller: PrincipalDep, body: GuardApprovalBody, response: Response, wait: WaitDep
) -> BulkDecisionView:
    """Carries out held containments, if the devices still fail; many at once need a second operator."""
    devices = await _selected(containment, body)
    wanted = OperatorRequest(ApprovalKind.LET_THROUGH, devices, caller, body.reason, even_protected=body.even_protected)
    decided = await decide(containment, wanted)
    if isinstance(decided, ApprovalRequest):
        response.status_code = 202
        return BulkDecisionView(request=request_view(decided, containment.fleet.clock.now()))
    return BulkDecisionView(items=await answers(containment, decided, wait))


@router.post("/dismiss", dependencies=[scope("contain"), Depends(writable)], responses=problems(409))
async def dismiss(containment: ContainmentDep, caller: CallerDep, body: HeldDeviceSelection) -> BulkDecisionView:
    """Dismisses held containments until their causes pass."""
    devices = await _selected(containment, body)
    outcomes = await containment.operators.dismiss(devices, caller, body.reason)
    await containment.fleet.load(devices, fresh=True)
    return BulkDecisionView(items=tuple(decision_view(containment, one) for one in outcomes))
