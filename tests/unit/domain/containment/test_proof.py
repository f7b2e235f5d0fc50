"""When a decision counts as proven."""

from dataclasses import replace

import pytest

from controller.domain.audit_kinds import DecisionKind
from controller.domain.containment.proof import DecisionProof, ProofState, device_proof, needs_proof, user_proof
from controller.domain.containment.users import UserCase
from controller.domain.device import ContainmentCase
from controller.domain.policy.model import ContainmentLevel

CASE = ContainmentCase("c1", ContainmentLevel.ISOLATED, (), "operator:a", "odd", 0.0, 0.0)
HELD = replace(CASE, proven_level=ContainmentLevel.ISOLATED)
USER = UserCase("lab", "u1", ContainmentLevel.ISOLATED, "operator:a", "odd", 0.0, 0.0)
FREED = replace(USER, level=ContainmentLevel.NONE)


@pytest.mark.parametrize(
    ("case_id", "case", "is_busy", "trouble", "state"),
    [
        ("c1", HELD, False, "", ProofState.PROVEN),
        ("c1", HELD, True, "", ProofState.PENDING),  # the same case with another end, or `kick`
        ("c1", CASE, True, "", ProofState.PENDING),
        ("c1", CASE, False, "", ProofState.PENDING),
        ("c1", replace(HELD, level=ContainmentLevel.RESTRICTED), False, "", ProofState.PENDING),
        ("c1", replace(CASE, trouble="no node"), True, "", ProofState.IN_TROUBLE),
        ("c1", HELD, True, "no node", ProofState.IN_TROUBLE),
        ("c1", replace(CASE, case_id="c2"), True, "", ProofState.SUPERSEDED),
        ("c1", None, False, "", ProofState.SUPERSEDED),
        ("", None, True, "", ProofState.PENDING),
        ("", None, True, "no node", ProofState.IN_TROUBLE),
        ("", None, False, "", ProofState.PROVEN),
        ("", CASE, True, "", ProofState.SUPERSEDED),
    ],
)
def test_proof_of_a_decision_about_a_device(
    case_id: str, case: ContainmentCase | None, is_busy: bool, trouble: str, state: ProofState
) -> None:
    assert device_proof(case_id, case, is_busy=is_busy, trouble=trouble).state is state


def test_the_trouble_of_the_last_attempt_comes_first() -> None:
    case = replace(CASE, trouble="an hour ago")
    assert device_proof("c1", case, is_busy=True, trouble="now").trouble == "now"
    assert device_proof("c1", case, is_busy=True, trouble="").trouble == "an hour ago"


@pytest.mark.parametrize(
    ("decided", "case", "proof"),
    [
        (USER, USER, DecisionProof(ProofState.PENDING)),
        (USER, replace(USER, trouble="away"), DecisionProof(ProofState.IN_TROUBLE, "away")),
        (USER, replace(USER, proven_level=ContainmentLevel.ISOLATED), DecisionProof(ProofState.PROVEN)),
        (USER, replace(USER, level=ContainmentLevel.RESTRICTED), DecisionProof(ProofState.SUPERSEDED)),
        (USER, replace(USER, case_id="u2"), DecisionProof(ProofState.SUPERSEDED)),
        (USER, None, DecisionProof(ProofState.SUPERSEDED)),
        (FREED, FREED, DecisionProof(ProofState.PENDING)),
        (FREED, None, DecisionProof(ProofState.PROVEN)),
    ],
)
def test_proof_of_a_decision_about_a_user(decided: UserCase, case: UserCase | None, proof: DecisionProof) -> None:
    assert user_proof(decided, case) == proof


def test_decisions_that_ask_nothing_of_the_broker() -> None:
    assert {decision for decision in DecisionKind if not needs_proof(decision)} == {
        DecisionKind.NOT_IN_FORCE,
        DecisionKind.NO_PENDING,
        DecisionKind.DISMISSED,
        DecisionKind.PENDING_CLEARED,
    }
