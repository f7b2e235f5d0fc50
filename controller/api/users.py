"""Users and certificates: who they are at the broker now, contain them with every session, release them."""

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from controller.api.auth import CallerDep, scope
from controller.api.context import Services, ServicesDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, DurationText, MqttUserName, OptionalTimestamp, ReasonText, UtcTimestamp, View
from controller.api.quarantine_plans import ContainmentPlanView, ContainmentReceiptView, PlanStageView, read_receipt
from controller.api.quarantine_views import ApprovalRequestView, DecisionView, decide, decision_view, request_view
from controller.api.waiting import RequestWait, WaitDep, decision_watch
from controller.domain.containment.plan import ContainmentGoal, Subject, SubjectKind
from controller.domain.containment.proof import ProofState, user_proof
from controller.domain.containment.users import UserCase
from controller.domain.events import ContainmentOrdered, ReleaseOrdered
from controller.domain.guards.approvals import ApprovalKind, ApprovalRequest
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import StepOutcome
from controller.ports.broker import ContainmentBroker, MqttSession, PlanParameters
from controller.ports.errors import BrokerRefusedError
from controller.service.containment.operator_actions import (
    OperatorRequest,
    ProtectedDeviceError,
    SecondApproverRequiredError,
)
from controller.service.containment.users import TooManyUsersError, UserContainments
from controller.service.waiting import ProofWatch, WaitEnd, Watch
from schemas.base import DEVICE_ID_PATTERN
from schemas.durations import parse_duration

MAX_SHOWN: Final = 1000  # sessions told of one user
MAX_SESSIONS: Final = 10  # that a containment may cut without saying so
_GOALS: Final = {
    "restrict": ContainmentGoal.RESTRICT,
    "isolate": ContainmentGoal.ISOLATE,
    "release": ContainmentGoal.RELEASE,
}

router = APIRouter(prefix="/users", tags=["users"], responses=problems(401, 404, 409, 422, 429, 503))
UserNameQuery = Annotated[MqttUserName, OptionalTimestamp, Query(description="the MQTT user name")]


class MqttSessionView(View):
    """A session that is there now."""

    client_id: str
    connected: Annotated[bool, Field(validation_alias="is_connected")]
    node: str


class UserCaseView(View):
    """A user that is contained. `proven`: the broker was read back and holds it."""

    username: Annotated[str, Field(validation_alias="name")]
    case_id: str
    level: ContainmentLevel
    proven: Annotated[bool, Field(validation_alias="is_proven")]
    proven_at: OptionalTimestamp
    trouble: str
    by: str
    reason: str
    opened_at: UtcTimestamp
    until: OptionalTimestamp


class UserDecisionView(UserCaseView):
    """The user's case as it is at the end of the wait, and how far the decision is proven."""

    proof: ProofState
    waited: WaitEnd


def _decision(users: UserContainments, decided: UserCase, waited: WaitEnd) -> UserDecisionView:
    """Returns the decision that left the user's case as `decided`, with its proof now."""
    case = users.cases.get(decided.name)
    proof = user_proof(decided, case)
    shown = decided if case is None or case.case_id != decided.case_id else case
    proven = proof.state is ProofState.PROVEN
    return UserDecisionView.of(shown, is_proven=proven, proof=proof.state, waited=waited)


class UserList(View):
    items: tuple[UserCaseView, ...]


class UserView(View):
    """A user at the broker now; `sessions` are at most 1,000, `total` counts all."""

    username: str
    case: UserCaseView | None
    sessions: tuple[MqttSessionView, ...]
    total: int


class UserContainmentBody(Body):
    """How far, why, and for how long an isolation. `max_sessions`: with more than these, nothing is done."""

    username: MqttUserName
    level: Literal[ContainmentLevel.RESTRICTED, ContainmentLevel.ISOLATED]
    reason: ReasonText
    duration: Annotated[DurationText | None, Field(alias="for", description="of an isolation: 90s, 10m, 2h, 1d")] = None
    max_sessions: Annotated[int, Field(ge=0, le=1_000_000)] = MAX_SESSIONS
    even_protected: bool = False


class UserReleaseBody(Body):
    username: MqttUserName
    reason: ReasonText


class CertificateContainmentBody(Body):
    """By a certificate's common name, which the broker takes for a client id or a user name."""

    common_name: MqttUserName
    level: Literal[ContainmentLevel.RESTRICTED, ContainmentLevel.ISOLATED]
    reason: ReasonText
    duration: Annotated[DurationText | None, Field(alias="for", description="of an isolation: 90s, 10m, 2h, 1d")] = None
    max_sessions: Annotated[int, Field(ge=0, le=1_000_000)] = MAX_SESSIONS
    even_protected: bool = False


class CertificateReleaseBody(Body):
    common_name: MqttUserName
    reason: ReasonText


class CertificateDecisionView(View):
    """What was decided: for the device of that id, for the user of that name, or both, as the broker names them.

    `request`: the device waits for a second person.
    """

    device: DecisionView | None
    user: UserDecisionView | None
    request: ApprovalRequestView | None = None


def _users(services: Services) -> tuple[UserContainments, ContainmentBroker]:
    assert services.users is not None
    return services.users, services.users.broker


@router.get("", dependencies=[scope("read")])
async def list_users(services: ServicesDep, _caller: CallerDep) -> UserList:
    """Users that are contained, by name."""
    users, _ = _users(services)
    return UserList(items=tuple(users.cases[name] for name in sorted(users.cases)))


@router.get("/sessions", dependencies=[scope("read")])
async def show_user(services: ServicesDep, _caller: CallerDep, username: UserNameQuery) -> UserView:
    """The sessions of a user now, on all nodes."""
    users, broker = _users(services)
    _check(broker, username)
    found = await broker.sessions(username)
    case = users.cases.get(username)
    return UserView(username=username, case=case, sessions=found[:MAX_SHOWN], total=len(found))


@router.get("/plan", dependencies=[scope("read")])
async def show_plan(
    services: ServicesDep,
    _caller: CallerDep,
    username: UserNameQuery,
    goal: Annotated[str, Query(pattern="^(restrict|isolate|release)$")],
    duration: Annotated[DurationText | None, Query(alias="for")] = None,
) -> ContainmentPlanView:
    """The calls that a containment or release of the user would make now."""
    users, broker = _users(services)
    _check(broker, username)
    case = users.cases.get(username)
    wanted = _GOALS[goal]
    if wanted is ContainmentGoal.RELEASE and case is not None and case.level is ContainmentLevel.ISOLATED:
        wanted = ContainmentGoal.END_ISOLATION
    until = None if duration is None else services.keeper.clock.now() + parse_duration(duration)
    intent = PlanParameters(wanted, until=until)
    if case is not None:
        kept = await services.store.kept_rules(f"username:{username}", case.case_id)
        intent = PlanParameters(wanted, case.case_id, case.reason, until, kept=kept or ())
    stages = tuple(map(PlanStageView.of, broker.planned(Subject.user(username), intent)))
    return ContainmentPlanView(device_id=f"username:{username}", goal=wanted, stages=stages)


@router.get("/receipt", dependencies=[scope("read")])
async def show_receipt(services: ServicesDep, _caller: CallerDep, username: UserNameQuery) -> ContainmentReceiptView:
    """Each call of the user's case, what was observed on which node, and the seconds to the cut."""
    users, _ = _users(services)
    case = users.cases.get(username)
    if case is None:
        raise ApiError(404, "no_receipt", "that user is not contained; the record tells of earlier cases")
    return await read_receipt(services, "", case.case_id, shown=f"username:{username}")


@router.post("/contain", dependencies=[scope("contain"), Depends(writable)])
async def contain_user(
    services: ServicesDep, caller: CallerDep, body: UserContainmentBody, wait: WaitDep
) -> UserDecisionView:
    """Ban or restrict a user and cut every session it has; later sessions are found and cut as well."""
    decided = await _contain_user(services, caller, body.username, body)
    _, user = await _answers(services, wait, None, decided)
    assert user is not None
    return user


@router.post("/release", dependencies=[scope("contain"), Depends(writable)])
async def release_user(
    services: ServicesDep, caller: CallerDep, body: UserReleaseBody, wait: WaitDep
) -> UserDecisionView:
    """An isolation steps down to restricted, a restriction ends."""
    users, _ = _users(services)
    decided = await users.release(body.username, by=caller, reason=body.reason)
    if decided is None:
        raise ApiError(404, "user_not_contained", "that user is not contained")
    _, user = await _answers(services, wait, None, decided)
    assert user is not None
    return user


@router.post("/certificates/contain", dependencies=[scope("contain"), Depends(writable)])
async def contain_certificate(
    services: ServicesDep, caller: CallerDep, body: CertificateContainmentBody, wait: WaitDep
) -> CertificateDecisionView:
    """Contain whoever the broker takes this common name for; the device need not have reported ever."""
    kinds = await _kinds(services)
    device: StepOutcome | ApprovalRequest | None = None
    if SubjectKind.CLIENT in kinds:
        device = await _contain_device(services, caller, _device_id(services, body.common_name), body)
    decided = await _contain_user(services, caller, body.common_name, body) if SubjectKind.USER in kinds else None
    request = None
    if isinstance(device, ApprovalRequest):
        request, device = request_view(device, services.keeper.clock.now()), None
    shown, user = await _answers(services, wait, device, decided)
    return CertificateDecisionView(device=shown, user=user, request=request)


async def _answers(
    services: Services, wait: RequestWait, device: StepOutcome | None, user: UserCase | None
) -> tuple[DecisionView | None, UserDecisionView | None]:
    """The decisions about a device and a user, once they are proven or the wait is over."""
    users, _ = _users(services)
    watches: dict[str, Watch] = {}
    if device is not None:
        watches[device.device.device_id] = decision_watch(services, device)
    if user is not None:
        watches[f"username:{user.name}"] = ProofWatch(lambda: user_proof(user, users.cases.get(user.name)))
    waited = await wait.until(watches)
    return (
        None if device is None else decision_view(services, device, waited),
        None if user is None else _decision(users, user, waited),
    )


async def _contain_device(
    services: Services, caller: str, device_id: str, body: CertificateContainmentBody
) -> StepOutcome | ApprovalRequest:
    """As any device that is contained by hand; one that never reported becomes known by it."""
    hold = None if body.duration is None else parse_duration(body.duration)
    if services.keeper.get(device_id) is None:
        await _spend(services, caller, (device_id,), even_protected=body.even_protected)
        event = ContainmentOrdered(services.keeper.new_id(), body.level, caller, body.reason, hold)
        return await services.keeper.handle(device_id, event)
    wanted = OperatorRequest(
        ApprovalKind.CONTAIN, (device_id,), caller, body.reason, body.level, hold, body.even_protected
    )
    decided = await decide(services, wanted)
    return decided if isinstance(decided, ApprovalRequest) else decided[0]


@router.post("/certificates/release", dependencies=[scope("contain"), Depends(writable)])
async def release_certificate(
    services: ServicesDep, caller: CallerDep, body: CertificateReleaseBody, wait: WaitDep
) -> CertificateDecisionView:
    """An isolation steps down to restricted, a restriction ends."""
    users, _ = _users(services)
    decided = await users.release(body.common_name, by=caller, reason=body.reason)
    outcome = None
    if services.keeper.get(body.common_name) is not None:
        event = ReleaseOrdered(services.keeper.new_id(), caller, body.reason)
        outcome = await services.keeper.handle(body.common_name, event)
    if decided is None and outcome is None:
        raise ApiError(404, "certificate_not_contained", "nobody of that common name is contained")
    device, user = await _answers(services, wait, outcome, decided)
    return CertificateDecisionView(device=device, user=user)


async def _contain_user(
    services: Services, caller: str, username: str, body: UserContainmentBody | CertificateContainmentBody
) -> UserCase:
    users, broker = _users(services)
    _check(broker, username)
    mqtt = services.settings.mqtt
    sessions = await broker.sessions(username)
    if username == mqtt.username or any(one.client_id == mqtt.client_id for one in sessions):
        raise ApiError(409, "would_cut_cordon", "that is the user of Cordon's own link: nothing was done")
    if len(sessions) > body.max_sessions:
        text = f"that user has {len(sessions)} sessions, more than {body.max_sessions}: nothing was done"
        raise ApiError(409, "too_many_sessions", text)
    _check_guards(services, caller, sessions, body)
    hold = None if body.duration is None else parse_duration(body.duration)
    names = tuple(one.client_id for one in sessions) or (f"user:{username}",)
    await _spend(services, caller, names, even_protected=body.even_protected)
    try:
        return await users.contain(username, body.level, by=caller, reason=body.reason, hold=hold)
    except TooManyUsersError as e:
        raise ApiError(409, "too_many_users", str(e)) from e


def _check_guards(
    services: Services,
    caller: str,
    sessions: Sequence[MqttSession],
    body: UserContainmentBody | CertificateContainmentBody,
) -> None:
    """What guards the devices of these sessions guards them here too."""
    alone = services.guarding.remaining_allowance(caller)
    if len(sessions) > alone:
        text = f"that user has {len(sessions)} sessions, and {alone} more devices are what you may contain alone now"
        raise ApiError(409, "second_person_needed", f"{text}: contain them as devices, which asks for a second person")
    known = [device for one in sessions if (device := services.keeper.get(one.client_id)) is not None]
    protection = services.keeper.guards.protection
    reasons = {device.device_id: why for device in known if (why := protection.protection_reason(device))}
    if reasons and not body.even_protected:
        raise ApiError(409, "device_protected", f"{ProtectedDeviceError(reasons)} (`even_protected`)")


async def _spend(services: Services, caller: str, names: tuple[str, ...], *, even_protected: bool) -> None:
    """Count it, so that one person does not contain one user after the other."""
    try:
        await services.guarding.charge(caller, names, even_protected=even_protected)
    except ProtectedDeviceError as e:
        raise ApiError(409, "device_protected", f"{e} (`even_protected`)") from e
    except SecondApproverRequiredError as e:
        raise ApiError(409, "second_person_needed", str(e)) from e


async def _kinds(services: Services) -> frozenset[SubjectKind]:
    _, broker = _users(services)
    kinds = await broker.named_by_certificate()
    if not kinds:
        text = "the broker names nobody by certificate: set peer_cert_as_clientid or peer_cert_as_username to cn"
        raise ApiError(409, "certificate_names_nobody", text)
    return kinds


def _device_id(services: Services, common_name: str) -> str:
    if not re.fullmatch(DEVICE_ID_PATTERN, common_name) or common_name == services.settings.mqtt.client_id:
        raise ApiError(422, "invalid_client_id", "The common name is not a client id that Cordon can act on.")
    return common_name


def _check(broker: ContainmentBroker, username: str) -> None:
    try:
        broker.check(Subject.user(username))
    except BrokerRefusedError as e:
        raise ApiError(422, "invalid_username", str(e)) from e
