"""Users, and clients named by certificates: their sessions, their containment and release."""

import re
from collections.abc import Collection
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from controller.api.approval_views import ApprovalRequestView, request_view
from controller.api.auth import CallerDep, PrincipalDep, scope
from controller.api.context import ContainmentDep, ContainmentServices, StoreDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import (
    Body,
    DurationText,
    MqttUserName,
    ReasonText,
    View,
)
from controller.api.quarantine_plans import (
    ContainmentPlanView,
    ContainmentReceiptView,
    PlanQueryDep,
    plan_view,
    read_receipt,
)
from controller.api.quarantine_views import (
    ApprovalRequiredView,
    DecisionView,
    decide,
    decision_view,
)
from controller.api.user_views import UserDecisionView, UserList, UserView, user_decision
from controller.api.waiting import RequestWait, WaitDep, decision_watch
from controller.domain.containment.plan import Subject, SubjectKind
from controller.domain.containment.proof import user_proof
from controller.domain.containment.users import UserCase
from controller.domain.events import ReleaseOrdered
from controller.domain.guards.approvals import MAX_TARGETS, ApprovalKind, ApprovalRequest
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.domain.transition import StepOutcome
from controller.ports.broker import ContainmentBroker
from controller.ports.errors import BrokerRefusedError
from controller.service.approvals.book import TooManyApprovalRequestsError
from controller.service.containment.operator_actions import OperatorRequest, ProtectedDeviceError
from controller.service.containment.users import OwnUserError, TooManyUsersError
from controller.service.waiting import ProofWatch, Watch
from schemas.base import DEVICE_ID_PATTERN
from schemas.durations import parse_duration

MAX_SHOWN: Final = 1000  # sessions of one user in an answer
MAX_SESSIONS: Final = 10  # that a containment cuts by default

router = APIRouter(prefix="/users", tags=["users"], responses=problems(401, 404, 409, 422, 429, 503))
UserNameQuery = Annotated[MqttUserName, Query(description="the MQTT user name")]


class SubjectContainmentBody(Body):
    """`for`: how long an isolation lasts. `max_sessions`: nothing is done if the user has more sessions."""

    level: Literal[ContainmentLevel.RESTRICTED, ContainmentLevel.ISOLATED]
    reason: ReasonText
    duration: Annotated[DurationText | None, Field(alias="for", description="of an isolation: 90s, 10m, 2h, 1d")] = None
    max_sessions: Annotated[int, Field(ge=0, le=1_000_000)] = MAX_SESSIONS
    even_protected: bool = False

    @property
    def hold(self) -> float | None:
        """Seconds."""
        return None if self.duration is None else parse_duration(self.duration)


class UserContainmentBody(SubjectContainmentBody):
    username: MqttUserName


class UserReleaseBody(Body):
    username: MqttUserName
    reason: ReasonText


class CertificateContainmentBody(SubjectContainmentBody):
    """`common_name`: of the certificate; the broker takes it for a client id, a user name, or both."""

    common_name: MqttUserName


class CertificateReleaseBody(Body):
    common_name: MqttUserName
    reason: ReasonText


class SubjectDecisionView(View):
    """The decision about the device of that client id, about the user of that name, or about both.

    `request`: the containment of the user, else of the device, needs the approval of a second person.
    """

    device: DecisionView | None
    user: UserDecisionView | None
    request: ApprovalRequestView | None = None


@router.get("", dependencies=[scope("read")])
async def list_users(containment: ContainmentDep, _caller: CallerDep) -> UserList:
    """Users that are contained, by name."""
    users = containment.users
    return UserList(items=tuple(users.cases[name] for name in sorted(users.cases)))


@router.get("/sessions", dependencies=[scope("read")])
async def show_user(containment: ContainmentDep, _caller: CallerDep, username: UserNameQuery) -> UserView:
    """The sessions of a user now, on all nodes."""
    users, broker = containment.users, containment.users.broker
    _check(broker, username)
    sessions = await broker.sessions(username)
    case = users.cases.get(username)
    return UserView(username=username, case=case, sessions=sessions[:MAX_SHOWN], total=len(sessions))


@router.get("/plan", dependencies=[scope("read")])
async def show_plan(
    containment: ContainmentDep, store: StoreDep, _caller: CallerDep, username: UserNameQuery, query: PlanQueryDep
) -> ContainmentPlanView:
    """The calls that a containment or release of the user would make now."""
    users, broker = containment.users, containment.users.broker
    return await plan_view(containment.fleet, store, broker, Subject.user(username), users.cases.get(username), query)


@router.get("/receipt", dependencies=[scope("read")])
async def show_receipt(
    containment: ContainmentDep, store: StoreDep, _caller: CallerDep, username: UserNameQuery
) -> ContainmentReceiptView:
    """Each call of the user's case, what was observed on which node, and the seconds to the cut."""
    users = containment.users
    case = users.cases.get(username)
    if case is None:
        raise ApiError(404, "no_receipt", "The user is not contained; the audit log has its earlier cases.")
    return await read_receipt(store, "", case.case_id, shown=str(case.subject))


@router.post(
    "/contain",
    dependencies=[scope("contain"), Depends(writable)],
    responses={202: {"model": ApprovalRequiredView, "description": "a second person has to approve"}},
)
async def contain_user(
    containment: ContainmentDep,
    caller: PrincipalDep,
    body: UserContainmentBody,
    response: Response,
    wait: WaitDep,
) -> UserDecisionView | ApprovalRequiredView:
    """Bans or restricts a user and cuts every session it has; later sessions are found and cut as well."""
    decision = await _contain(containment, caller, wait, {SubjectKind.USER}, body.username, body)
    if decision.request is not None:
        response.status_code = 202
        return ApprovalRequiredView(request=decision.request)
    assert decision.user is not None
    return decision.user


@router.post("/release", dependencies=[scope("contain"), Depends(writable)])
async def release_user(
    containment: ContainmentDep, caller: CallerDep, body: UserReleaseBody, wait: WaitDep
) -> UserDecisionView:
    """An isolation becomes a restriction, a restriction ends."""
    decision = await _release(containment, caller, wait, {SubjectKind.USER}, body.username, body.reason)
    if decision.user is None:
        raise ApiError(404, "user_not_contained", "The user is not contained.")
    return decision.user


@router.post("/certificates/contain", dependencies=[scope("contain"), Depends(writable)])
async def contain_certificate(
    containment: ContainmentDep,
    caller: PrincipalDep,
    body: CertificateContainmentBody,
    wait: WaitDep,
) -> SubjectDecisionView:
    """Contains what the broker takes this common name for; the device need not have reported."""
    broker = containment.users.broker
    kinds = await broker.named_by_certificate()
    if not kinds:
        text = "The broker names no client by certificate: set peer_cert_as_clientid or peer_cert_as_username to cn."
        raise ApiError(409, "certificate_names_nobody", text)
    return await _contain(containment, caller, wait, kinds, body.common_name, body)


@router.post("/certificates/release", dependencies=[scope("contain"), Depends(writable)])
async def release_certificate(
    containment: ContainmentDep, caller: CallerDep, body: CertificateReleaseBody, wait: WaitDep
) -> SubjectDecisionView:
    """An isolation becomes a restriction, a restriction ends."""
    decision = await _release(containment, caller, wait, set(SubjectKind), body.common_name, body.reason)
    if decision.user is None and decision.device is None:
        text = "Neither a device nor a user of that common name is contained."
        raise ApiError(404, "certificate_not_contained", text)
    return decision


async def _contain(
    containment: ContainmentServices,
    caller: Principal,
    wait: RequestWait,
    kinds: Collection[SubjectKind],
    name: str,
    body: SubjectContainmentBody,
) -> SubjectDecisionView:
    """Contains the device of this client id, the user of this name, or both."""
    device: StepOutcome | ApprovalRequest | None = None
    if SubjectKind.CLIENT in kinds:
        device = await _contain_device(containment, caller, name, body)
    user: UserCase | ApprovalRequest | None = None
    if SubjectKind.USER in kinds:
        user = await _contain_user(containment, caller, name, body)
    request = None
    if isinstance(device, ApprovalRequest):
        request, device = device, None
    if isinstance(user, ApprovalRequest):
        request, user = user, None
    view = None if request is None else request_view(request, containment.fleet.clock.now())
    return await subject_answer(containment, wait, device, user, view)


async def _release(
    containment: ContainmentServices,
    caller: str,
    wait: RequestWait,
    kinds: Collection[SubjectKind],
    name: str,
    reason: str,
) -> SubjectDecisionView:
    users = containment.users
    user = await users.release(name, by=caller, reason=reason) if SubjectKind.USER in kinds else None
    device = None
    if SubjectKind.CLIENT in kinds and await containment.fleet.find(name) is not None:
        device = await containment.fleet.apply_and_commit(
            name, ReleaseOrdered(containment.fleet.new_id(), caller, reason)
        )
    return await subject_answer(containment, wait, device, user)


async def subject_answer(
    containment: ContainmentServices,
    wait: RequestWait,
    device: StepOutcome | None,
    user: UserCase | None,
    request: ApprovalRequestView | None = None,
) -> SubjectDecisionView:
    """The decisions, once they are proven or the wait is over."""
    users = containment.users
    watches: dict[str, Watch] = {}
    if device is not None:
        watches[device.device.device_id] = decision_watch(containment, device)
    if user is not None:
        watches[str(user.subject)] = ProofWatch(lambda: user_proof(user, users.cases.get(user.name)))
    waited = await wait.until(watches)
    return SubjectDecisionView(
        device=None if device is None else decision_view(containment, device, waited),
        user=None if user is None else user_decision(users, user, waited),
        request=request,
    )


async def _contain_device(
    containment: ContainmentServices,
    caller: Principal,
    device_id: str,
    body: SubjectContainmentBody,
) -> StepOutcome | ApprovalRequest:
    """As an operator contains any device; a device that never reported becomes known by it."""
    if not re.fullmatch(DEVICE_ID_PATTERN, device_id) or device_id in containment.fleet.own.ids:
        raise ApiError(422, "invalid_client_id", "The common name is not a client id that Cordon can act on.")
    if await containment.fleet.find(device_id) is None and containment.fleet.is_full:
        raise ApiError(409, "too_many_devices", "As many devices are known as the configuration allows.")
    request = OperatorRequest(
        ApprovalKind.CONTAIN, (device_id,), caller, body.reason, body.level, body.hold, body.even_protected
    )
    decided = await decide(containment, request)
    return decided if isinstance(decided, ApprovalRequest) else decided[0]


async def _contain_user(
    containment: ContainmentServices,
    caller: Principal,
    username: str,
    body: SubjectContainmentBody,
) -> UserCase | ApprovalRequest:
    _check(containment.users.broker, username)
    try:
        sessions = await containment.users.sessions_to_cut(username)
    except OwnUserError as e:
        raise ApiError(409, "would_cut_cordon", str(e)) from e
    if len(sessions) > body.max_sessions:
        text = f"The user has {len(sessions)} sessions, more than {body.max_sessions}: nothing was done."
        raise ApiError(409, "too_many_sessions", text)
    if len(sessions) > MAX_TARGETS:
        text = f"{len(sessions)} sessions are more than {MAX_TARGETS} in one decision"
        raise ApiError(409, "too_many_devices", text)
    kind, protected = ApprovalKind.CONTAIN_USER, body.even_protected
    action = OperatorRequest(kind, sessions, caller, body.reason, body.level, body.hold, protected, username=username)
    try:
        request = await containment.operators.charge(action)
        if request is not None:
            return request
        by = caller.actor
        return await containment.users.contain(username, body.level, by=by, reason=body.reason, hold=body.hold)
    except ProtectedDeviceError as e:
        raise ApiError(409, "device_protected", f"{e} (`even_protected`)") from e
    except TooManyApprovalRequestsError as e:
        raise ApiError(409, "too_many_requests", str(e)) from e
    except TooManyUsersError as e:
        raise ApiError(409, "too_many_users", str(e)) from e


def _check(broker: ContainmentBroker, username: str) -> None:
    try:
        broker.check(Subject.user(username))
    except BrokerRefusedError as e:
        raise ApiError(422, "invalid_username", str(e)) from e
