"""What was decided for a device, and the request where one person may not decide it."""

from collections.abc import Sequence

from controller.api.audit_texts import sentence
from controller.api.context import Services
from controller.api.errors import ApiError
from controller.api.fields import UtcTimestamp, View, at
from controller.api.views import CaseView
from controller.api.waiting import RequestWait, decision_watch, proof_of
from controller.domain.audit_kinds import DecisionKind
from controller.domain.containment.proof import ProofState
from controller.domain.guards.approvals import ApprovalKind, ApprovalRequest, ApprovalState
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import StepOutcome
from controller.service.containment.operator_actions import (
    OperatorRequest,
    ProtectedDeviceError,
    TooManyApprovalRequestsError,
)
from controller.service.waiting import WaitEnd
from schemas.durations import duration_text


class DecisionView(View):
    """What was decided and kept, and how far it is proven; `level`, `case` and `proof` are as of the end of the wait.

    `proven`: the broker was read back and holds the decision; `trouble`: what the last attempt lacked.
    """

    device_id: str
    decision: DecisionKind
    text: str
    level: ContainmentLevel
    case: CaseView | None
    proof: ProofState
    proven: bool
    trouble: str
    waited: WaitEnd

    @classmethod
    def of(cls, services: Services, outcome: StepOutcome, waited: WaitEnd = WaitEnd.NO) -> "DecisionView":
        """The decision and its proof now."""
        assert outcome.decision is not None  # every operator's request has one
        device = services.device(outcome.device.device_id)
        proof = proof_of(services, outcome)
        return cls(
            device_id=device.device_id,
            decision=outcome.decision,
            text=sentence(outcome.decision),
            level=device.level,
            case=None if device.case is None else CaseView.of(device.case),
            proof=proof.state,
            proven=proof.state is ProofState.PROVEN,
            trouble=proof.trouble,
            waited=waited,
        )


async def answers(services: Services, outcomes: Sequence[StepOutcome], wait: RequestWait) -> tuple[DecisionView, ...]:
    """The decisions, once they are proven or the wait is over."""
    waited = await wait.until({one.device.device_id: decision_watch(services, one) for one in outcomes})
    return tuple(DecisionView.of(services, one, waited) for one in outcomes)


class ApprovalRequestView(View):
    """More containments than one person may decide. `asks`: contain, or let through what guards hold back."""

    request_id: str
    asks: ApprovalKind
    state: ApprovalState
    by: str
    reason: str
    level: ContainmentLevel
    duration: str | None
    devices: tuple[str, ...]
    asked_at: UtcTimestamp
    expires_at: UtcTimestamp
    decided_by: str
    decided_at: UtcTimestamp | None

    @classmethod
    def of(cls, request: ApprovalRequest, now: float) -> "ApprovalRequestView":
        """The request as it stands at `now` (Unix seconds)."""
        return cls(
            request_id=request.request_id,
            asks=request.kind,
            state=request.state_at(now),
            by=request.by,
            reason=request.reason,
            level=request.level,
            duration=None if request.hold is None else duration_text(request.hold),
            devices=request.devices,
            asked_at=at(request.asked_at),
            expires_at=at(request.expires_at),
            decided_by=request.decided_by,
            decided_at=at(request.decided_at) if request.decided_at else None,
        )


class ApprovalRequiredView(View):
    """Nothing was contained: this is for a second person to approve."""

    request: ApprovalRequestView


class BulkDecisionView(View):
    """What was decided for each device; or `request`, and nothing was decided yet."""

    items: tuple[DecisionView, ...] = ()
    request: ApprovalRequestView | None = None


async def decide(services: Services, wanted: OperatorRequest) -> Sequence[StepOutcome] | ApprovalRequest:
    """Carry out what an operator wants, or ask for a second person.

    Raises:
        ApiError: 409, a device is protected and that was not meant, or too many requests are open.
    """
    try:
        return await services.guarding.decide(wanted)
    except ProtectedDeviceError as e:
        raise ApiError(409, "device_protected", f"{e} (`even_protected`)") from e
    except TooManyApprovalRequestsError as e:
        raise ApiError(409, "too_many_requests", str(e)) from e
