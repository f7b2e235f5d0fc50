"""Plans and receipts of containments."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import BeforeValidator, Field

from controller.api.auth import CallerDep, scope
from controller.api.context import ContainmentDep, ContainmentServices, FleetDep, StoreDep, require_device
from controller.api.errors import ApiError, problems
from controller.api.fields import DeviceIdPath, DurationText, OptionalTimestamp, UnreadNodes, UtcTimestamp, View
from controller.api.views import AuditText, CaseView
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.plan import ContainmentGoal, Subject, SubjectKind
from controller.domain.containment.receipts import OPENING, receipt_of
from controller.domain.containment.users import UserCase
from controller.domain.device import ContainmentCase
from controller.domain.effects import NO_OPTIONS, ContainmentOptions
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import ContainmentBroker, PlanParameters
from controller.ports.errors import BrokerError, BrokerRefusedError
from controller.ports.store import Store
from controller.service.fleet_state import FleetState
from schemas.durations import parse_duration

MAX_LINES: Final = 2000  # audit entries of one receipt
_CASE_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,128}$"
_GOALS: Final = {
    "restrict": ContainmentGoal.RESTRICT,
    "isolate": ContainmentGoal.ISOLATE,
    "release": ContainmentGoal.RELEASE,
}

router = APIRouter(prefix="/quarantine", tags=["quarantine"], responses=problems(401, 404, 422, 429, 503))


class PlannedCallView(View):
    """A planned call; values that only the broker knows are in angle brackets."""

    method: str
    path: str
    body: Any
    where: str
    only: str


class PlanStepView(View):
    """A step or a check, with its calls."""

    what: str
    calls: tuple[PlannedCallView, ...]


def _steps(steps: Iterable[tuple[str, object]]) -> list[dict[str, object]]:
    return [{"what": what, "calls": calls} for what, calls in steps]


PlanSteps = Annotated[tuple[PlanStepView, ...], BeforeValidator(_steps)]


class PlanStageView(View):
    """`gated`: starts only when everything before it is proven. `repeated`: steps repeated until the checks pass."""

    acts: PlanSteps
    looks: PlanSteps
    repeated: tuple[str, ...]
    gated: bool


class ContainmentPlanView(View):
    """The stages of a containment in order; the broker was not queried."""

    device_id: str
    goal: ContainmentGoal
    stages: tuple[PlanStageView, ...]


class ReceiptStepView(View):
    """A call and its response, or, without `call`, an observation at the node."""

    what: str
    call: str
    node: str
    answer: str
    seconds: float


class ReceiptDecisionView(View):
    """A decision and its result. `seconds`: from the arrival of the report to the disconnection."""

    decision: AuditKind
    text: Annotated[AuditText, Field(validation_alias="decision")]
    level: str
    by: str
    reason: str
    decided_at: UtcTimestamp
    evidence_at: OptionalTimestamp
    cut_at: OptionalTimestamp
    proven_at: OptionalTimestamp
    seconds: float | None
    troubles: tuple[str, ...]
    refused: str
    lines: tuple[ReceiptStepView, ...]
    attempted: tuple[ReceiptStepView, ...]
    unread: UnreadNodes
    left_open: tuple[str, ...]


class ContainmentReceiptView(View):
    """`closed`: the last decision of the case was read back from the broker. `in_force`: the case, if not over."""

    device_id: str
    case_id: str
    closed: Annotated[bool, Field(validation_alias="is_closed")]
    partial: Annotated[bool, Field(validation_alias="is_partial")]
    deeds: tuple[ReceiptDecisionView, ...]
    in_force: CaseView | None = None


async def check_options(containment: ContainmentServices, level: ContainmentLevel, options: ContainmentOptions) -> None:
    """Checks that the options can be carried out.

    Raises:
        ApiError: 422 for an option of the other level, 409 where the broker cannot do it, 503 where it does not answer.
    """
    if options.kick and level is not ContainmentLevel.RESTRICTED:
        text = "`kick` only applies to `restricted`; `isolated` always disconnects."
        raise ApiError(422, "option_not_applicable", text)
    if not options.clear_retained:
        return
    if level is not ContainmentLevel.ISOLATED:
        text = "`clear_retained` only applies to `isolated`: a connected device could publish the messages again."
        raise ApiError(422, "option_not_applicable", text)
    try:
        if await containment.broker.lists_retained():
            return
    except BrokerError as e:
        raise ApiError(503, "broker_unreachable", f"cannot ask the broker for retained messages: {e}") from e
    raise ApiError(409, "broker_cannot", "this broker cannot list retained messages: isolate without clear_retained")


class PlanQuery:
    """The goal of a plan, and the duration of an isolation."""

    def __init__(
        self,
        goal: Annotated[str, Query(pattern="^(restrict|isolate|release)$")],
        duration: Annotated[DurationText | None, Query(alias="for")] = None,
    ) -> None:
        self.goal = _GOALS[goal]
        self.hold = None if duration is None else parse_duration(duration)


PlanQueryDep = Annotated[PlanQuery, Depends()]


@router.get("/{device_id}/plan", dependencies=[scope("read")])
async def show_plan(
    containment: ContainmentDep,
    store: StoreDep,
    _caller: CallerDep,
    device_id: DeviceIdPath,
    query: PlanQueryDep,
    kick: bool = False,
    clear_retained: bool = False,
) -> ContainmentPlanView:
    """Returns the calls that a containment or release would make; the device may be unknown."""
    device, options = await containment.fleet.find(device_id), ContainmentOptions(kick, clear_retained)
    case = None if device is None else device.case
    return await plan_view(
        containment.fleet, store, containment.broker, Subject.client(device_id), case, query, options
    )


async def plan_view(
    fleet: FleetState,
    store: Store,
    broker: ContainmentBroker,
    subject: Subject,
    case: ContainmentCase | UserCase | None,
    query: PlanQuery,
    options: ContainmentOptions = NO_OPTIONS,
) -> ContainmentPlanView:
    """Returns the plan for a subject, with the saved state of its case in force.

    Raises:
        ApiError: 422, Cordon cannot act on the name.
    """
    goal, now, key = query.goal, fleet.clock.now(), str(subject)
    wanted = PlanParameters(
        goal,
        until=None if query.hold is None else now + query.hold,
        kick=options.kick,
        clear_retained=options.clear_retained,
    )
    if case is not None:
        if goal is ContainmentGoal.RELEASE and case.level is ContainmentLevel.ISOLATED:
            goal = ContainmentGoal.END_ISOLATION
        rules = await store.kept_rules(key, case.case_id) or ()
        subscriptions = await store.kept_subscriptions(key, case.case_id)
        wanted = replace(
            wanted, goal=goal, case=case.case_id, reason=case.reason, kept=rules, subscriptions=subscriptions
        )
    try:
        stages = broker.planned(subject, wanted)
    except BrokerRefusedError as e:
        code = "invalid_client_id" if subject.kind is SubjectKind.CLIENT else "invalid_username"
        raise ApiError(422, code, str(e)) from e
    return ContainmentPlanView(device_id=key, goal=goal, stages=stages)


@router.get("/{device_id}/receipt", dependencies=[scope("read")])
async def show_receipt(
    fleet: FleetDep,
    store: StoreDep,
    _caller: CallerDep,
    device_id: DeviceIdPath,
    case_id: Annotated[str | None, Query(pattern=_CASE_PATTERN)] = None,
) -> ContainmentReceiptView:
    """Returns the calls and observations of a case, the latest by default, and the seconds to the disconnection."""
    device = await require_device(fleet, device_id)
    if case_id is None:
        case_id = device.case.case_id if device.case is not None else await _last_case(store, device_id)
    receipt = await read_receipt(store, device_id, case_id, shown=device_id)
    in_force = device.case if device.case is not None and device.case.case_id == case_id else None
    return receipt if in_force is None else ContainmentReceiptView.of(receipt, in_force=in_force)


async def read_receipt(store: Store, device_id: str, case_id: str, *, shown: str) -> ContainmentReceiptView:
    """Returns the receipt of a case from the audit log; `shown`: its subject.

    Raises:
        ApiError: 404, the audit log has no such case.
    """
    lines = await store.audit(device_id=device_id, case_id=case_id, limit=MAX_LINES, newest_first=False)
    receipt = receipt_of(shown, case_id, ((line.at, line.entry) for line in lines))
    if not receipt.deeds:
        raise ApiError(404, "no_receipt", f"the audit log has no case {case_id} of {shown}")
    return ContainmentReceiptView.of(receipt)


async def _last_case(store: Store, device_id: str) -> str:
    found = [line for kind in OPENING for line in await store.audit(device_id=device_id, kind=kind, limit=1)]
    if not found:
        raise ApiError(404, "no_receipt", f"the audit log has no containment of {device_id}")
    return max(found, key=lambda line: (line.at, line.id)).entry.case_id
