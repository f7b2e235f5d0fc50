"""What is merely claimed contains nobody; everything else says how it was proved."""

import pytest

from controller.domain import events as ev
from controller.domain.effects import RestrictClient
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from tests.support.playbook import device, given, policies, reported, rule

RULES = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)))


def test_only_a_proof_may_contain() -> None:
    assert {one for one in Evidence if one.may_contain} == {Evidence.SIGNED, Evidence.MUTUAL_TLS, Evidence.PASSWORD}


def test_better_proof_ranks_higher() -> None:
    order = [Evidence.UNASKED, Evidence.CLAIMED, Evidence.PASSWORD, Evidence.MUTUAL_TLS, Evidence.SIGNED]
    assert sorted(Evidence, key=lambda one: one.rank) == order


def _report(evidence: Evidence) -> ev.PostureReported:
    plain = reported("telnet")
    return ev.PostureReported(
        plain.event_id, plain.seq, plain.digest, plain.boot_id, plain.agent, plain.received_at, plain.findings, "v1",
        evidence,
    )  # fmt: skip


def test_a_report_that_is_known_to_be_merely_claimed_contains_nobody() -> None:
    play = given(device(), RULES).when(_report(Evidence.CLAIMED))
    assert play.state.case is None
    assert "p/telnet" in play.state.rules


@pytest.mark.parametrize("evidence", [Evidence.SIGNED, Evidence.PASSWORD, Evidence.UNASKED])
def test_the_grade_goes_with_case_effect_and_record(evidence: Evidence) -> None:
    play = given(device(), RULES).when(_report(evidence))
    case = play.state.case
    assert case is not None
    assert case.evidence is evidence
    (effect,) = play.effects
    assert isinstance(effect, RestrictClient)
    assert effect.evidence is evidence
    assert play.outcome is not None
    assert (play.outcome.audit[-1].detail or {})["evidence"] == evidence.value


def test_the_brokers_word_is_noted_in_the_case_unless_the_signal_proved_more() -> None:
    for of_report, of_broker, kept in (
        (Evidence.UNASKED, Evidence.MUTUAL_TLS, Evidence.MUTUAL_TLS),
        (Evidence.SIGNED, Evidence.UNASKED, Evidence.SIGNED),
    ):
        play = given(device(), RULES).when(_report(of_report))
        case_id = play.state.case.case_id if play.state.case else ""
        play = play.when(ev.ContainmentProven("p", case_id, ContainmentLevel.RESTRICTED, 1.0, (), of_broker))
        assert play.state.case is not None
        assert play.state.case.evidence is kept
