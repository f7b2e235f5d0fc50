"""Requests that wait for a second person: see them, approve another's, reject any."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from controller.api.auth import CallerDep, scope
from controller.api.context import Services, ServicesDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, Reason, View
from controller.api.quarantine_views import Decision, RequestView
from controller.domain.guards.approvals import NotDecidableError, RequestState

RequestId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="id of the request")]
router = APIRouter(prefix="/approvals", tags=["approvals"], responses=problems(401, 403, 422, 429, 503))


class RequestList(View):
    items: tuple[RequestView, ...]


class Rejection(Body):
    reason: Reason


class Approved(View):
    """The request as it ended, and what was decided for each device."""

    request: RequestView
    items: tuple[Decision, ...]


def _view(services: Services, request_id: str) -> RequestView:
    request = services.guarding.requests.get(request_id)
    if request is None:
        raise ApiError(404, "request_unknown", f"there is no request {request_id}")
    return RequestView.of(request, services.keeper.clock.now())


@router.get("", dependencies=[scope("read")])
async def list_requests(services: ServicesDep, state: RequestState | None = None) -> RequestList:
    """Requests, newest first."""
    now = services.keeper.clock.now()
    found = (RequestView.of(one, now) for one in reversed(services.guarding.requests.values()))
    return RequestList(items=tuple(one for one in found if state is None or one.state is state))


@router.get("/{request_id}", dependencies=[scope("read")], responses=problems(404))
async def show_request(services: ServicesDep, request_id: RequestId) -> RequestView:
    """One request with all its devices."""
    return _view(services, request_id)


@router.post("/{request_id}/approve", dependencies=[scope("contain"), Depends(writable)], responses=problems(404, 409))
async def approve_request(services: ServicesDep, caller: CallerDep, request_id: RequestId) -> Approved:
    """Carry out what another operator asked for."""
    _view(services, request_id)
    try:
        outcomes = await services.guarding.approve(request_id, caller)
    except NotDecidableError as e:
        raise ApiError(409, "not_decidable", str(e)) from e
    return Approved(request=_view(services, request_id), items=tuple(map(Decision.of, outcomes)))


@router.post("/{request_id}/reject", dependencies=[scope("contain"), Depends(writable)], responses=problems(404, 409))
async def reject_request(
    services: ServicesDep, caller: CallerDep, request_id: RequestId, body: Rejection
) -> RequestView:
    """Say no, to another's request or to one's own."""
    _view(services, request_id)
    try:
        await services.guarding.reject(request_id, caller, body.reason)
    except NotDecidableError as e:
        raise ApiError(409, "not_decidable", str(e)) from e
    return _view(services, request_id)
