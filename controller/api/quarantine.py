"""Quarantine by hand: restrict, isolate, release, and what is contained now."""

import asyncio
import heapq
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends
from pydantic import Field

from controller.api.containment import check_options
from controller.api.context import ServicesDep, writable
from controller.api.devices import DevicePage
from controller.api.errors import problems
from controller.api.fields import Body, DeviceIdPath, Duration, Limit, Offset, Reason, View
from controller.api.guard import CallerDep, scope
from controller.api.views import CaseView, DeviceSummary
from controller.domain.containment_options import Options
from controller.domain.draft import Outcome
from controller.domain.durations import parse_duration
from controller.domain.events import OperatorContained, OperatorReleased
from controller.domain.policy import Level

_AT_ONCE: Final = 5000  # devices looked at before others get their turn

router = APIRouter(prefix="/quarantine", tags=["quarantine"], responses=problems(401, 422, 429, 503))


class Containment(Body):
    """How far, why, and for how long; without `for` until an operator releases it."""

    level: Literal[Level.RESTRICTED, Level.ISOLATED]
    reason: Reason
    duration: Annotated[Duration | None, Field(alias="for", description="90s, 10m, 2h, 1d")] = None
    kick: Annotated[bool, Field(description="a restriction also destroys the session")] = False
    clear_retained: Annotated[bool, Field(description="an isolation also deletes what it left retained")] = False


class Release(Body):
    reason: Reason


class Decision(View):
    """What was decided and kept. `case` turns `proven` once the broker was read back."""

    device_id: str
    decision: str
    level: Level
    case: CaseView | None

    @classmethod
    def of(cls, outcome: Outcome) -> "Decision":
        """From what the step made of it."""
        device = outcome.device
        case = None if device.case is None else CaseView.of(device.case)
        decision = outcome.audit[0].kind if outcome.audit else ""
        return cls(device_id=device.device_id, decision=decision, level=device.level, case=case)


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


@router.put("/{device_id}", dependencies=[scope("contain"), Depends(writable)], responses=problems(404))
async def contain(
    services: ServicesDep, caller: CallerDep, device_id: DeviceIdPath, containment: Containment
) -> Decision:
    """Restrict or isolate; a stronger containment in force stays."""
    services.device(device_id)
    hold = None if containment.duration is None else parse_duration(containment.duration)
    event_id = services.keeper.new_id()
    options = Options(kick=containment.kick, clear_retained=containment.clear_retained)
    await check_options(services, containment.level, options)
    event = OperatorContained(event_id, containment.level, caller, containment.reason, hold, options)
    return Decision.of(await services.keeper.handle(device_id, event))


@router.post("/{device_id}/release", dependencies=[scope("contain"), Depends(writable)], responses=problems(404))
async def release(services: ServicesDep, caller: CallerDep, device_id: DeviceIdPath, body: Release) -> Decision:
    """End a containment: an isolation steps down to restricted, a restriction ends."""
    services.device(device_id)
    event = OperatorReleased(services.keeper.new_id(), caller, body.reason)
    return Decision.of(await services.keeper.handle(device_id, event))
