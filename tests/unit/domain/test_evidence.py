"""Evidence: an unauthenticated report contains no device, and the authentication is recorded."""

from dataclasses import replace

import pytest

from controller.domain import events as ev
from controller.domain.effects import RestrictClient
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from tests.support.playbook import device, given, policies, reported, rule

RULES = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)))


def test_only_authenticated_evidence_may_contain() -> None:
    assert {evidence for evidence in Evidence if evidence.may_contain} == {
        Evidence.SIGNED,
        Evidence.MUTUAL_TLS,
        Evidence.PASSWORD,
    }


def test_stronger_evidence_ranks_higher() -> None:
    order = [Evidence.UNASKED, Evidence.CLAIMED, Evidence.PASSWORD, Evidence.MUTUAL_TLS, Evidence.SIGNED]
    assert sorted(Evidence, key=lambda each: each.rank) == order


def _report(evidence: Evidence) -> ev.PostureReported:
    return replace(reported("telnet"), evidence=evidence)


def test_unauthenticated_report_contains_no_device() -> None:
    play = given(device(), RULES).when(_report(Evidence.CLAIMED))
    assert play.state.case is None
    assert "p/telnet" in play.state.rules


@pytest.mark.parametrize("evidence", [Evidence.SIGNED, Evidence.PASSWORD, Evidence.UNASKED])
def test_case_effect_and_audit_have_the_evidence(evidence: Evidence) -> None:
    play = given(device(), RULES).when(_report(evidence))
    assert play.case.evidence is evidence
    (effect,) = play.effects
    assert isinstance(effect, RestrictClient)
    assert effect.evidence is evidence
    assert (play.audit[-1].detail or {})["evidence"] == evidence.value


def test_case_keeps_the_stronger_evidence_of_report_and_broker() -> None:
    for of_report, of_broker, stronger in (
        (Evidence.UNASKED, Evidence.MUTUAL_TLS, Evidence.MUTUAL_TLS),
        (Evidence.SIGNED, Evidence.UNASKED, Evidence.SIGNED),
    ):
        play = given(device(), RULES).when(_report(of_report))
        case_id = play.case.case_id
        play = play.when(ev.ContainmentProven("p", case_id, ContainmentLevel.RESTRICTED, 1.0, (), of_broker))
        assert play.case.evidence is stronger
