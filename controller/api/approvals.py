"""Approval requests: list, approve, reject."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from controller.api.auth import CallerDep, PrincipalDep, scope
from controller.api.context import ContainmentDep, ContainmentServices, SettingsDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, ReasonText, View
from controller.api.quarantine_views import ApprovalRequestView, DecisionView, answers, request_view
from controller.api.user_views import UserDecisionView
from controller.api.users import sessions_to_cut, subject_answer
from controller.api.waiting import WaitDep
from controller.domain.guards.approvals import ApprovalKind, ApprovalNotAllowedError, ApprovalState
from controller.service.containment.operator_actions import ProtectedDeviceError
from controller.service.containment.users import TooManyUsersError

ApprovalRequestPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="id of the request")]
router = APIRouter(prefix="/approvals", tags=["approvals"], responses=problems(401, 403, 422, 429, 503))


class ApprovalRequestList(View):
    items: tuple[ApprovalRequestView, ...]


class RejectionBody(Body):
    reason: ReasonText


class ApprovalResultView(View):
    """The approved request, and the decision for each device, or about the user."""

    request: ApprovalRequestView
    items: tuple[DecisionView, ...]
    user: UserDecisionView | None = None


def _view(containment: ContainmentServices, request_id: str) -> ApprovalRequestView:
    request = containment.operators.requests.get(request_id)
    if request is None:
        raise ApiError(404, "request_unknown", f"there is no request {request_id}")
    return request_view(request, containment.fleet.clock.now())


@router.get("", dependencies=[scope("read")])
async def list_requests(containment: ContainmentDep, state: ApprovalState | None = None) -> ApprovalRequestList:
    """Lists requests, newest first."""
    now = containment.fleet.clock.now()
    found = (request_view(one, now) for one in reversed(containment.operators.requests.values()))
    return ApprovalRequestList(items=tuple(one for one in found if state is None or one.state is state))


@router.get("/{request_id}", dependencies=[scope("read")], responses=problems(404))
async def show_request(containment: ContainmentDep, request_id: ApprovalRequestPath) -> ApprovalRequestView:
    """Returns a request with all its devices."""
    return _view(containment, request_id)


@router.post("/{request_id}/approve", dependencies=[scope("contain"), Depends(writable)], responses=problems(404, 409))
async def approve_request(
    containment: ContainmentDep,
    settings: SettingsDep,
    caller: PrincipalDep,
    request_id: ApprovalRequestPath,
    wait: WaitDep,
) -> ApprovalResultView:
    """Approves and carries out another person's request; a token counts as the person who made it, for a day."""
    asked = _view(containment, request_id)
    try:
        if asked.asks is ApprovalKind.CONTAIN_USER:
            sessions = await sessions_to_cut(containment, settings, asked.username)
            case = await containment.operators.approve_user(request_id, caller, sessions, containment.users.contain)
            answer = await subject_answer(containment, wait, None, case)
            return ApprovalResultView(request=_view(containment, request_id), items=(), user=answer.user)
        outcomes = await containment.operators.approve(request_id, caller)
    except ApprovalNotAllowedError as e:
        raise ApiError(409, "not_decidable", str(e)) from e
    except TooManyUsersError as e:
        raise ApiError(409, "too_many_users", str(e)) from e
    except ProtectedDeviceError as e:
        raise ApiError(409, "device_protected", f"{e} (`even_protected` of a new request)") from e
    request = _view(containment, request_id)
    return ApprovalResultView(request=request, items=await answers(containment, outcomes, wait))


@router.post("/{request_id}/reject", dependencies=[scope("contain"), Depends(writable)], responses=problems(404, 409))
async def reject_request(
    containment: ContainmentDep, caller: CallerDep, request_id: ApprovalRequestPath, body: RejectionBody
) -> ApprovalRequestView:
    """Rejects another operator's request, or withdraws the caller's own."""
    _view(containment, request_id)
    try:
        await containment.operators.reject(request_id, caller, body.reason)
    except ApprovalNotAllowedError as e:
        raise ApiError(409, "not_decidable", str(e)) from e
    return _view(containment, request_id)
