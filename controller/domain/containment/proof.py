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
    """`partial`: every node that could be read holds the decision, but a running node could not be read.

    `in_trouble`: the last attempt at the broker failed, the next one follows. `superseded`: another decision came
    after this one.
    """

    PROVEN = "proven"
    PARTIAL = "partial"
    IN_TROUBLE = "in_trouble"
    PENDING = "pending"
    SUPERSEDED = "superseded"
    NOT_REQUIRED = "not_required"


@dataclass(frozen=True, slots=True)
class DecisionProof:
    """`trouble`: what the last attempt lacked; `unread`: the running nodes that could not be read, with the reason."""

    state: ProofState
    trouble: str = ""
    unread: tuple[tuple[str, str], ...] = ()


def needs_proof(decision: DecisionKind) -> bool:
    """Whether the decision asks anything of the broker."""
    return decision not in _NOT_REQUIRED


def device_proof(
    case_id: str,
    case: ContainmentCase | None,
    *,
    is_busy: bool,
    trouble: str,
    unread: tuple[tuple[str, str], ...] = (),
) -> DecisionProof:
    """The proof of a decision about a device, after which the case `case_id` was in force ("": none).

    `case` is in force now. `is_busy`: calls for the device are still to be made; `trouble`: what the last one lacked;
    `unread`: what only kept it from being proven.
    """
    if case_id != ("" if case is None else case.case_id):
        return DecisionProof(ProofState.SUPERSEDED)
    if not is_busy and (case is None or case.proven_level is case.level):
        return DecisionProof(ProofState.PROVEN)
    if unread or (case is not None and case.unread and not trouble):
        return _partial(unread or () if case is None else unread or case.unread)
    return _unproven(trouble or ("" if case is None else case.trouble))


def user_proof(decided: UserCase, case: UserCase | None) -> DecisionProof:
    """The proof of a decision about a user; `decided` is its case after the decision, `case` the case now."""
    if case is None or case.case_id != decided.case_id:
        is_free = case is None and decided.level is ContainmentLevel.NONE
        return DecisionProof(ProofState.PROVEN if is_free else ProofState.SUPERSEDED)
    if case.level is not decided.level:
        return DecisionProof(ProofState.SUPERSEDED)
    if case.is_proven:
        return DecisionProof(ProofState.PROVEN)
    return _partial(case.unread) if case.unread else _unproven(case.trouble)


def unread_text(nodes: tuple[tuple[str, str], ...]) -> str:
    """The unread nodes with their reasons, as a sentence."""
    named = [f"{node}: {reason}" if node else reason for node, reason in nodes]
    return f"not read back from a running node: {'; '.join(named)}"


def _partial(nodes: tuple[tuple[str, str], ...]) -> DecisionProof:
    return DecisionProof(ProofState.PARTIAL, unread_text(nodes), nodes)


def _unproven(trouble: str) -> DecisionProof:
    return DecisionProof(ProofState.IN_TROUBLE if trouble else ProofState.PENDING, trouble)
