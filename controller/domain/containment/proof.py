"""When a decision is proven: the broker was read back and holds it. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.domain.audit_kinds import DecisionKind
from controller.domain.containment.users import UserCase
from controller.domain.device import ContainmentCase
from controller.domain.policy.model import ContainmentLevel

# Decisions that ask nothing of the broker.
_NOT_REQUIRED: Final = frozenset(
    {DecisionKind.NOT_IN_FORCE, DecisionKind.NO_PENDING, DecisionKind.DISMISSED, DecisionKind.PENDING_CLEARED}
)


class ProofState(StrEnum):
    """`in_trouble`: the last attempt at the broker failed, the next one follows. `superseded`: another decision came
    after this one.
    """

    PROVEN = "proven"
    IN_TROUBLE = "in_trouble"
    PENDING = "pending"
    SUPERSEDED = "superseded"
    NOT_REQUIRED = "not_required"


@dataclass(frozen=True, slots=True)
class DecisionProof:
    """`trouble`: what the last attempt lacked."""

    state: ProofState
    trouble: str = ""


def needs_proof(decision: DecisionKind) -> bool:
    """Whether the decision asks anything of the broker."""
    return decision not in _NOT_REQUIRED


def device_proof(case_id: str, case: ContainmentCase | None, *, is_busy: bool, trouble: str) -> DecisionProof:
    """The proof of a decision about a device, after which the case `case_id` was in force ("": none).

    `case` is in force now. `is_busy`: calls for the device are still to be made; `trouble`: what the last one lacked.
    """
    if case_id != ("" if case is None else case.case_id):
        return DecisionProof(ProofState.SUPERSEDED)
    if not is_busy and (case is None or case.proven_level is case.level):
        return DecisionProof(ProofState.PROVEN)
    return _unproven(trouble or ("" if case is None else case.trouble))


def user_proof(decided: UserCase, case: UserCase | None) -> DecisionProof:
    """The proof of a decision about a user; `decided` is its case after the decision, `case` the case now."""
    if case is None or case.case_id != decided.case_id:
        is_free = case is None and decided.level is ContainmentLevel.NONE
        return DecisionProof(ProofState.PROVEN if is_free else ProofState.SUPERSEDED)
    if case.level is not decided.level:
        return DecisionProof(ProofState.SUPERSEDED)
    return DecisionProof(ProofState.PROVEN) if case.is_proven else _unproven(case.trouble)


def _unproven(trouble: str) -> DecisionProof:
    return DecisionProof(ProofState.IN_TROUBLE if trouble else ProofState.PENDING, trouble)
