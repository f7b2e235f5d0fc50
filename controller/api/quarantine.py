"""Containment by operators: restrict, isolate, release, list."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from controller.api.approval_views import request_view
from controller.api.auth import CallerDep, PrincipalDep, scope
from controller.api.context import ContainmentDep, ContainmentServices, require_device, require_devices, writable
from controller.api.device_lists import DevicePage, FilterDep, ListingDep
from controller.api.devices import DeviceLabel
from controller.api.errors import ApiError, problems
from controller.api.fields import (
    Body,
    DeviceIdPath,
    DurationText,
    ReasonText,
    View,
)
from controller.api.quarantine_plans import check_options
from controller.api.quarantine_views import (
    ApprovalRequiredView,
    BulkDecisionView,
    DecisionView,
    answers,
    decide,
)
from controller.api.views import CaseView
from controller.api.waiting import WaitDep, proof_in_force
from controller.domain.containment.proof import ProofState
from controller.domain.effects import ContainmentOptions
from controller.domain.guards.approvals import MAX_TARGETS, ApprovalKind, ApprovalRequest
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.ports.fleet_queries import DeviceFilter
from controller.service.containment.operator_actions import OperatorRequest
from controller.service.fleet_state import FleetState
from controller.service.waiting import ProofWatch, WaitEnd
from schemas.base import DEVICE_ID_PATTERN
from schemas.durations import parse_duration

QuarantineDeviceId = Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]
MAX_NAMED: Final = 900  # devices; as many ids as fit into a request

router = APIRouter(prefix="/quarantine", tags=["quarantine"], responses=problems(401, 422, 429, 503))


class ContainmentBody(Body):
    """Level, reason and duration of a containment; without `for` until an operator releases it.

    `even_protected`: also contains a protected device.
    """

    level: Literal[ContainmentLevel.RESTRICTED, ContainmentLevel.ISOLATED]
    reason: ReasonText
    duration: Annotated[DurationText | None, Field(alias="for", description="90s, 10m, 2h, 1d")] = None
    kick: Annotated[bool, Field(description="a restriction also destroys the session")] = False
    clear_retained: Annotated[bool, Field(description="an isolation also deletes what it left retained")] = False
    even_protected: bool = False


class ReleaseBody(Body):
    reason: ReasonText


class SelectedDevicesBody(Body):
    """The named devices, and those with the tag or the class."""

    devices: Annotated[tuple[QuarantineDeviceId, ...], Field(max_length=MAX_NAMED, fail_fast=True)] = ()
    tag: DeviceLabel | None = None
    device_class: DeviceLabel | None = None

    async def chosen(self, fleet: FleetState, *, contained: bool) -> tuple[str, ...]:
        """Returns the ids; with `contained`, of tag and class only devices that are contained.

        Raises:
            ApiError: 404, a named device is unknown, or none is selected; 409, too many are.
        """
        await require_devices(fleet, self.devices)
        meant, found = DeviceFilter(contained=True if contained else None), set[str]()
        for where in (replace(meant, tag=self.tag), replace(meant, device_class=self.device_class)):
            if where != meant:
                found |= {device.device_id async for device in fleet.select(where)}
        devices = tuple(dict.fromkeys((*self.devices, *sorted(found))))
        if not devices:
            what = "no contained device" if contained else "no device"
            raise ApiError(404, "no_devices_selected", f"No device was named, and {what} has the tag or the class.")
        if len(devices) > MAX_TARGETS:
            text = f"{len(devices)} devices are more than {MAX_TARGETS} in one decision"
            raise ApiError(409, "too_many_devices", text)
        return devices


@router.get("", dependencies=[scope("read")])
async def list_contained(listing: ListingDep, where: FilterDep) -> DevicePage:
    """Lists restricted and isolated devices."""
    return await listing.page(replace(where, contained=True))


_ASKED: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": ApprovalRequiredView, "description": "a second person has to approve; nothing was contained"}
}


class BulkContainmentBody(ContainmentBody, SelectedDevicesBody):
    """The named devices, and those with the tag or the class."""


class BulkReleaseBody(ReleaseBody, SelectedDevicesBody):
    """The named devices, and the contained ones with the tag or the class."""


@router.put(
    "",
    dependencies=[scope("contain", step_up=True), Depends(writable)],
    responses={**problems(404, 409), 202: {"model": BulkDecisionView}},
)
async def contain_many(
    containment: ContainmentDep, caller: PrincipalDep, body: BulkContainmentBody, response: Response, wait: WaitDep
) -> BulkDecisionView:
    """Restricts or isolates several devices in one decision."""
    devices = await body.chosen(containment.fleet, contained=False)
    decided = await decide(containment, await _wanted(containment, devices, caller, body))
    if isinstance(decided, ApprovalRequest):
        response.status_code = 202
        return BulkDecisionView(request=request_view(decided, containment.fleet.clock.now()))
    return BulkDecisionView(items=await answers(containment, decided, wait))


@router.put(
    "/{device_id}",
    dependencies=[scope("contain"), Depends(writable)],
    responses={**problems(404, 409), **_ASKED},
)
async def contain(
    containment: ContainmentDep,
    caller: PrincipalDep,
    device_id: DeviceIdPath,
    body: ContainmentBody,
    response: Response,
    wait: WaitDep,
) -> DecisionView | ApprovalRequiredView:
    """Restricts or isolates a device; a stronger containment in force stays."""
    await require_device(containment.fleet, device_id)
    decided = await decide(containment, await _wanted(containment, (device_id,), caller, body))
    if isinstance(decided, ApprovalRequest):
        response.status_code = 202
        return ApprovalRequiredView(request=request_view(decided, containment.fleet.clock.now()))
    (view,) = await answers(containment, decided, wait)
    return view


async def _wanted(
    containment: ContainmentServices, devices: tuple[str, ...], caller: Principal, body: ContainmentBody
) -> OperatorRequest:
    options = ContainmentOptions(kick=body.kick, clear_retained=body.clear_retained)
    await check_options(containment, body.level, options)
    hold = None if body.duration is None else parse_duration(body.duration)
    return OperatorRequest(
        ApprovalKind.CONTAIN, devices, caller, body.reason, body.level, hold, body.even_protected, options
    )


class BulkReleaseView(View):
    """The decision for each device."""

    items: tuple[DecisionView, ...]


@router.post("/release", dependencies=[scope("contain"), Depends(writable)], responses=problems(404, 409))
async def release_many(
    containment: ContainmentDep, caller: CallerDep, body: BulkReleaseBody, wait: WaitDep
) -> BulkReleaseView:
    """Releases several devices in one decision: isolations step down to restrictions, restrictions end."""
    devices = await body.chosen(containment.fleet, contained=True)
    outcomes = await containment.operators.release(devices, caller, body.reason)
    return BulkReleaseView(items=await answers(containment, outcomes, wait))


@router.post("/{device_id}/release", dependencies=[scope("contain"), Depends(writable)], responses=problems(404))
async def release(
    containment: ContainmentDep, caller: CallerDep, device_id: DeviceIdPath, body: ReleaseBody, wait: WaitDep
) -> DecisionView:
    """Releases a device: an isolation steps down to a restriction, a restriction ends."""
    await require_device(containment.fleet, device_id)
    outcomes = await containment.operators.release((device_id,), caller, body.reason)
    (view,) = await answers(containment, outcomes, wait)
    return view


class DeviceProofView(View):
    """A device's containment in force and its proof."""

    device_id: str
    level: ContainmentLevel
    case: CaseView | None
    proof: ProofState
    proven: bool
    trouble: str
    waited: WaitEnd


@router.get("/{device_id}/proof", dependencies=[scope("read")], responses=problems(404))
async def show_proof(
    containment: ContainmentDep, _caller: CallerDep, device_id: DeviceIdPath, wait: WaitDep
) -> DeviceProofView:
    """Returns the proof of the last decision; with `wait`, continues a wait that was too short."""
    await require_device(containment.fleet, device_id)
    waited = await wait.until({device_id: ProofWatch(partial(proof_in_force, containment, device_id))})
    device, proof = await require_device(containment.fleet, device_id), proof_in_force(containment, device_id)
    return DeviceProofView(
        device_id=device_id,
        level=device.level,
        case=device.case,
        proof=proof.state,
        proven=proof.state is ProofState.PROVEN,
        trouble=proof.trouble,
        waited=waited,
    )
