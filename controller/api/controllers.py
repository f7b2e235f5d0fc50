"""The controllers that work with the store."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from controller.api.auth import scope
from controller.api.context import LeasesDep
from controller.api.errors import problems
from controller.api.fields import UtcTimestamp, View

router = APIRouter(prefix="/controllers", tags=["controllers"], responses=problems(401, 422, 429, 503))


class ControllerView(View):
    """A controller that runs, or ended less than a few seconds ago without saying so."""

    name: str
    run: Annotated[int, Field(description="number of this run in the store")]
    since: UtcTimestamp
    version: str
    is_leader: bool
    buckets: Annotated[int, Field(description="of 256: whose devices' effects and deadlines are its own")]
    pending: Annotated[int, Field(description="effects of its devices that are not carried out yet")]
    lease_left: Annotated[
        float | None, Field(description="seconds, negative once it is over; null where one controller runs")
    ]
    clock_offset: Annotated[float, Field(description="seconds by which its clock is behind the store's")]
    answers: Annotated[bool, Field(description="whether this answer is its own")]


class ControllerPage(View):
    items: tuple[ControllerView, ...]


@router.get("", dependencies=[scope("read")])
async def list_controllers(leases: LeasesDep) -> ControllerPage:
    """Lists the controllers of the store by name."""
    return ControllerPage(
        items=tuple(
            ControllerView(
                name=one.name,
                run=one.run,
                since=one.since,
                version=one.version,
                is_leader=one.is_leader,
                buckets=one.buckets,
                pending=one.pending,
                lease_left=one.lease_left if leases.is_shared else None,
                clock_offset=one.clock_offset,
                answers=one.run == leases.run_number,
            )
            for one in await leases.controllers()
        )
    )
