"""Decisions about devices, and approval requests."""

from collections.abc import Sequence

from controller.api.approval_views import ApprovalRequestView
from controller.api.context import ContainmentServices
from controller.api.errors import ApiError
from controller.api.fields import UnreadNodes, View
from controller.api.views import AuditText, CaseView
from controller.api.waiting import RequestWait, decision_watch, proof_of
from controller.domain.audit_kinds import DecisionKind
from controller.domain.containment.proof import ProofState
from controller.domain.guards.approvals import ApprovalRequest
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import StepOutcome
from controller.service.approvals.book import TooManyApprovalRequestsError
from controller.service.containment.operator_actions import OperatorRequest, ProtectedDeviceError
from controller.service.waiting import WaitEnd


class DecisionView(View):
    """A decision in the store, and its proof; `level`, `case` and `proof` are as of the end of the wait.

    `proven`: the decision was read back from every running node; `trouble`: why the last attempt failed; `unread`: the
    running nodes that could not be read, where the proof is partial.
    """

    device_id: str
    decision: DecisionKind
    text: AuditText
    level: ContainmentLevel
    case: CaseView | None
    proof: ProofState
    proven: bool
    trouble: str
    unread: UnreadNodes
    waited: WaitEnd


def decision_view(containment: ContainmentServices, outcome: StepOutcome, waited: WaitEnd = WaitEnd.NO) -> DecisionView:
    """Returns the decision with its proof now; its device is loaded."""
    device, proof = containment.fleet.get(outcome.device.device_id), proof_of(containment, outcome)
    assert device is not None
    assert outcome.decision is not None  # every operator's request has one
    return DecisionView.of(
        device,
        decision=outcome.decision,
        text=outcome.decision,
        proof=proof.state,
        proven=proof.state is ProofState.PROVEN,
        trouble=proof.trouble,
        unread=proof.unread,
        waited=waited,
    )


async def answers(
    containment: ContainmentServices, outcomes: Sequence[StepOutcome], wait: RequestWait
) -> tuple[DecisionView, ...]:
    """Returns the decisions once they are proven or the wait is over."""
    waited = await wait.until({one.device.device_id: decision_watch(containment, one) for one in outcomes})
    return tuple(decision_view(containment, outcome, waited) for outcome in outcomes)


class ApprovalRequiredView(View):
    """Nothing was contained: a second operator has to approve the request."""

    request: ApprovalRequestView


class BulkDecisionView(View):
    """The decision for each device; or `request`, and nothing is decided yet."""

    items: tuple[DecisionView, ...] = ()
    request: ApprovalRequestView | None = None


async def decide(containment: ContainmentServices, wanted: OperatorRequest) -> Sequence[StepOutcome] | ApprovalRequest:
    """Carries out an operator's request, or records it for a second operator to approve.

    Raises:
        ApiError: 409, a device is protected, or too many requests are open.
    """
    try:
        return await containment.operators.decide(wanted)
    except ProtectedDeviceError as e:
        raise ApiError(409, "device_protected", f"{e} (`even_protected`)") from e
    except TooManyApprovalRequestsError as e:
        raise ApiError(409, "too_many_requests", str(e)) from e
