"""The inbox of all questions that need a second person, and scopes for a while."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field

from controller.api.approval_views import MAX_LISTED, ApprovalRequestView, request_view
from controller.api.auth import PrincipalDep, RequestCallerDep, refuse_scope, scope
from controller.api.context import ApprovalsDep, ContainmentDep, FleetDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, DurationText, NextKey, PageKey, PageLimit, ReasonText, View
from controller.api.quarantine_views import DecisionView, answers
from controller.api.user_views import UserDecisionView
from controller.api.users import subject_answer
from controller.api.waiting import WaitDep
from controller.domain.accounts.caller import Caller
from controller.domain.accounts.grants import GrantNotPossibleError
from controller.domain.guards.approvals import (
    ApprovalKind,
    ApprovalNotAllowedError,
    ApprovalScopeError,
    ApprovalState,
)
from controller.domain.rollout.model import RolloutError
from controller.domain.scopes import ALL, Scope
from controller.service.approvals.book import TooManyApprovalRequestsError
from controller.service.containment.operator_actions import ProtectedDeviceError
from controller.service.containment.users import OwnUserError, TooManyUsersError
from controller.service.identity.own_certificates import OwnCertificateInUseError
from schemas.durations import parse_duration

ApprovalRequestPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="id of the request")]
Mine = Annotated[bool, Query(description="only what the caller asked for")]
router = APIRouter(prefix="/approvals", tags=["approvals"], responses=problems(401, 403, 404, 422, 429, 503))


class ApprovalRequestPage(View):
    items: tuple[ApprovalRequestView, ...]
    next: NextKey


class ScopeGrantList(View):
    items: tuple[ApprovalRequestView, ...]


class ScopesBody(Body):
    """Scopes for the caller, for a while from the approval on."""

    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(ALL))]
    duration: Annotated[DurationText, Field(alias="for", description="1m to 8h: 30m, 2h")]
    reason: ReasonText


class ApprovalBody(Body):
    """`digest`: of the request that was looked at; another one is not approved."""

    digest: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None


class RejectionBody(Body):
    reason: ReasonText


class ApprovalResultView(View):
    """The approved request, and the decision for each device, or about the user."""

    request: ApprovalRequestView
    items: tuple[DecisionView, ...]
    user: UserDecisionView | None = None


@contextmanager
def _errors(request_id: str) -> Iterator[None]:
    """Turns what forbids a decision into an answer."""
    try:
        yield
    except KeyError as e:
        raise ApiError(404, "request_unknown", f"there is no request {request_id}") from e
    except (ApprovalNotAllowedError, RolloutError) as e:
        raise ApiError(409, "not_decidable", str(e)) from e
    except TooManyUsersError as e:
        raise ApiError(409, "too_many_users", str(e)) from e
    except OwnUserError as e:
        raise ApiError(409, "would_cut_cordon", str(e)) from e
    except OwnCertificateInUseError as e:
        raise ApiError(409, "own_certificate", str(e)) from e
    except ProtectedDeviceError as e:
        raise ApiError(409, "device_protected", f"{e} (`even_protected` of a new request)") from e


@asynccontextmanager
async def _errors_and_scopes(request: Request, caller: Caller, request_id: str) -> AsyncIterator[None]:
    """As `_errors`, and turns a scope that the caller lacks into a recorded refusal."""
    with _errors(request_id):
        try:
            yield
        except ApprovalScopeError as e:
            raise await refuse_scope(request, caller, e.scopes, str(e)) from e


@router.get("", dependencies=[scope("read")])
async def list_requests(
    fleet: FleetDep,
    caller: PrincipalDep,
    state: ApprovalState | None = None,
    asks: ApprovalKind | None = None,
    mine: Mine = False,
    limit: PageLimit = 100,
    after: PageKey = None,
) -> ApprovalRequestPage:
    """Lists requests of all kinds, newest first, also those that have ended."""
    now = fleet.clock.now()
    found = await fleet.store.approvals(
        state=None if state is None else state.value,
        kind=None if asks is None else asks.value,
        requester=caller.key if mine else None,
        limit=limit,
        after=after,
    )
    items = (request_view(one, now, most=MAX_LISTED) for one in found)
    return ApprovalRequestPage(
        items=tuple(one for one in items if state is None or one.state is state),
        next=found[-1].request_id if len(found) == limit else None,
    )


@router.post("", status_code=201, dependencies=[scope("read"), Depends(writable)], responses=problems(409))
async def ask_for_scopes(
    fleet: FleetDep, approvals: ApprovalsDep, caller: RequestCallerDep, body: ScopesBody
) -> ApprovalRequestView:
    """Asks for scopes for a while; a second person who has them by role gives them."""
    try:
        asked = await approvals.ask_for_scopes(caller, body.scopes, parse_duration(body.duration), body.reason)
    except GrantNotPossibleError as e:
        raise ApiError(409, "grant_not_possible", str(e)) from e
    except TooManyApprovalRequestsError as e:
        raise ApiError(409, "too_many_requests", str(e)) from e
    return request_view(asked, fleet.clock.now())


@router.get("/grants", dependencies=[scope("read")])
async def list_grants(
    fleet: FleetDep, approvals: ApprovalsDep, caller: PrincipalDep, mine: Mine = False
) -> ScopeGrantList:
    """Lists the scopes that persons have for a while now."""
    now = fleet.clock.now()
    found = approvals.book.lending(now)
    return ScopeGrantList(
        items=tuple(request_view(one, now) for one in found if not mine or one.requester.key == caller.key)
    )


@router.get("/{request_id}", dependencies=[scope("read")])
async def show_request(
    fleet: FleetDep, approvals: ApprovalsDep, request_id: ApprovalRequestPath
) -> ApprovalRequestView:
    """Returns a request with all its devices."""
    found = await approvals.book.find(request_id)
    if found is None:
        raise ApiError(404, "request_unknown", f"there is no request {request_id}")
    return request_view(found, fleet.clock.now())


@router.post(
    "/{request_id}/approve", dependencies=[scope("read", step_up=True), Depends(writable)], responses=problems(409)
)
async def approve_request(
    request: Request,
    containment: ContainmentDep,
    approvals: ApprovalsDep,
    caller: RequestCallerDep,
    request_id: ApprovalRequestPath,
    wait: WaitDep,
    body: ApprovalBody | None = None,
) -> ApprovalResultView:
    """Approves and carries out another person's request; which scope that needs depends on what it asks for."""
    async with _errors_and_scopes(request, caller, request_id):
        done = await approvals.approve(request_id, caller, None if body is None else body.digest)
    view = request_view(done.request, containment.fleet.clock.now())
    if done.request.state is ApprovalState.FAILED:
        raise ApiError(409, "not_carried_out", f"it was approved and cannot be carried out: {done.request.outcome}")
    if done.user is not None:
        answer = await subject_answer(containment, wait, None, done.user)
        return ApprovalResultView(request=view, items=(), user=answer.user)
    return ApprovalResultView(request=view, items=await answers(containment, done.outcomes, wait))


@router.post("/{request_id}/reject", dependencies=[scope("read"), Depends(writable)], responses=problems(409))
async def reject_request(
    request: Request,
    fleet: FleetDep,
    approvals: ApprovalsDep,
    caller: RequestCallerDep,
    request_id: ApprovalRequestPath,
    body: RejectionBody,
) -> ApprovalRequestView:
    """Rejects a request, with the scope that its approval needs; a rollout is aborted, a command withdrawn."""
    async with _errors_and_scopes(request, caller, request_id):
        ended = await approvals.reject(request_id, caller, body.reason)
    return request_view(ended, fleet.clock.now())


@router.post("/{request_id}/withdraw", dependencies=[scope("read"), Depends(writable)], responses=problems(409))
async def withdraw_request(
    fleet: FleetDep, approvals: ApprovalsDep, caller: PrincipalDep, request_id: ApprovalRequestPath, body: RejectionBody
) -> ApprovalRequestView:
    """Withdraws the caller's own request."""
    with _errors(request_id):
        ended = await approvals.withdraw(request_id, caller, body.reason)
    return request_view(ended, fleet.clock.now())


@router.post("/{request_id}/end", dependencies=[scope("read"), Depends(writable)], responses=problems(409))
async def end_scopes(
    request: Request,
    fleet: FleetDep,
    approvals: ApprovalsDep,
    caller: RequestCallerDep,
    request_id: ApprovalRequestPath,
    body: RejectionBody,
) -> ApprovalRequestView:
    """Ends scopes for a while before their time: the caller's own, or with the scopes themselves."""
    async with _errors_and_scopes(request, caller, request_id):
        ended = await approvals.end_scopes(request_id, caller, body.reason)
    return request_view(ended, fleet.clock.now())
