"""Quarantine by hand: restrict, isolate, release, and what is contained now."""

import asyncio
import heapq
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from controller.api.auth import CallerDep, scope
from controller.api.context import Services, ServicesDep, writable
from controller.api.devices import DevicePage, Label
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, DeviceIdPath, Duration, Limit, Offset, Reason
from controller.api.quarantine_plans import check_options
from controller.api.quarantine_views import Asked, Decision, RequestView, Together, decide
from controller.api.views import DeviceSummary
from controller.domain.durations import parse_duration
from controller.domain.effects import Options
from controller.domain.events import OperatorReleased
from controller.domain.guards.approvals import MAX_TARGETS, Kind, Request
from controller.domain.policy.model import Level
from controller.service.containment.operator_actions import Wanted
from schemas.base import DEVICE_ID_PATTERN

Named = Annotated[str, Field(pattern=DEVICE_ID_PATTERN)]
MAX_NAMED: Final = 900  # devices; as many ids as fit into a request
_AT_ONCE: Final = 5000  # devices looked at before others get their turn

router = APIRouter(prefix="/quarantine", tags=["quarantine"], responses=problems(401, 422, 429, 503))


class Containment(Body):
    """How far, why, and for how long; without `for` until an operator releases it.

    `even_protected`: also a device that is protected from being contained.
    """

    level: Literal[Level.RESTRICTED, Level.ISOLATED]
    reason: Reason
    duration: Annotated[Duration | None, Field(alias="for", description="90s, 10m, 2h, 1d")] = None
    kick: Annotated[bool, Field(description="a restriction also destroys the session")] = False
    clear_retained: Annotated[bool, Field(description="an isolation also deletes what it left retained")] = False
    even_protected: bool = False


class Release(Body):
    reason: Reason


@router.get("", dependencies=[scope("read")])
async def list_contained(
    services: ServicesDep, level: Level | None = None, limit: Limit = 100, offset: Offset = 0
) -> DevicePage:
    """Devices that are restricted or isolated."""
    found: list[str] = []
    for number, device in enumerate(list(services.keeper.devices.values())):
        if number % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        if device.case is not None and (level is None or device.level is level):
            found.append(device.device_id)
    page = heapq.nsmallest(offset + limit, found)[offset:]
    items = tuple(DeviceSummary.of(services.device(one)) for one in page)
    return DevicePage(items=items, total=len(found), limit=limit, offset=offset)


_ASKED: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": Asked, "description": "a second person has to approve; nothing was contained"}
}


class Selection(Containment):
    """The devices named, and those with the tag or the class."""

    devices: Annotated[tuple[Named, ...], Field(max_length=MAX_NAMED)] = ()
    tag: Label | None = None
    device_class: Label | None = None


@router.put(
    "", dependencies=[scope("contain"), Depends(writable)], responses={**problems(404, 409), 202: {"model": Together}}
)
async def contain_many(services: ServicesDep, caller: CallerDep, body: Selection, response: Response) -> Together:
    """Restrict or isolate several at once: all of them in one decision, or none of them yet."""
    for device_id in body.devices:
        services.device(device_id)
    chosen = [
        device.device_id
        for device in services.keeper.devices.values()
        if (body.tag is not None and body.tag in device.tags)
        or (body.device_class is not None and body.device_class == device.device_class)
    ]
    devices = tuple(dict.fromkeys((*body.devices, *sorted(chosen))))
    if not devices:
        raise ApiError(404, "nobody_selected", "no device is named, has that tag or that class")
    if len(devices) > MAX_TARGETS:
        raise ApiError(409, "too_many_devices", f"{len(devices)} devices are more than {MAX_TARGETS} in one decision")
    decided = await decide(services, await _wanted(services, devices, caller, body))
    if isinstance(decided, Request):
        response.status_code = 202
        return Together(request=RequestView.of(decided, services.keeper.clock.now()))
    return Together(items=tuple(map(Decision.of, decided)))


@router.put(
    "/{device_id}",
    dependencies=[scope("contain"), Depends(writable)],
    responses={**problems(404, 409), **_ASKED},
)
async def contain(
    services: ServicesDep, caller: CallerDep, device_id: DeviceIdPath, containment: Containment, response: Response
) -> Decision | Asked:
    """Restrict or isolate; a stronger containment in force stays."""
    services.device(device_id)
    decided = await decide(services, await _wanted(services, (device_id,), caller, containment))
    if isinstance(decided, Request):
        response.status_code = 202
        return Asked(request=RequestView.of(decided, services.keeper.clock.now()))
    return Decision.of(decided[0])


async def _wanted(services: Services, devices: tuple[str, ...], caller: str, body: Containment) -> Wanted:
    options = Options(kick=body.kick, clear_retained=body.clear_retained)
    await check_options(services, body.level, options)
    hold = None if body.duration is None else parse_duration(body.duration)
    return Wanted(Kind.CONTAIN, devices, caller, body.reason, body.level, hold, body.even_protected, options)


@router.post("/{device_id}/release", dependencies=[scope("contain"), Depends(writable)], responses=problems(404))
async def release(services: ServicesDep, caller: CallerDep, device_id: DeviceIdPath, body: Release) -> Decision:
    """End a containment: an isolation steps down to restricted, a restriction ends."""
    services.device(device_id)
    event = OperatorReleased(services.keeper.new_id(), caller, body.reason)
    return Decision.of(await services.keeper.handle(device_id, event))
