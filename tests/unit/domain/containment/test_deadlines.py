"""Deadlines of a device, and what follows when they pass."""

from dataclasses import replace

import pytest

from controller.domain import events as ev
from controller.domain.containment.broker_results import LATER_PAUSE
from controller.domain.containment.deadlines import next_deadline
from controller.domain.device import ContainmentCase, RuleState
from controller.domain.effects import RestrictClient
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from tests.support.playbook import START, beat, device, given, policies, reported, restrict, rule

FAILED = RuleState(RuleResult.FAIL, START, 1)
RULES = policies(
    rule("a", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("slow", RuleResponse(contain=ContainmentLevel.ISOLATED, grace=60.0)),
)
CASE = ContainmentCase("c", ContainmentLevel.RESTRICTED, ("p/a",), "policy", "", START, START)


def test_isolation_and_grace_period_have_deadlines() -> None:
    assert next_deadline(device(), RULES) is None
    isolated = replace(CASE, level=ContainmentLevel.ISOLATED, isolate_until=START + 5)
    assert next_deadline(device(case=isolated), RULES) == START + 5
    assert next_deadline(device(case=replace(isolated, isolate_until=None)), RULES) is None
    assert next_deadline(device(rules={"p/slow": FAILED}), RULES) == START + 60


@pytest.mark.parametrize(
    "changes",
    [
        {"rules": {"p/gone": FAILED}},
        {"rules": {"p/a": FAILED}},
        {"rules": {"p/slow": replace(FAILED, streak=0)}},
        {"rules": {"p/slow": replace(FAILED, result=RuleResult.ERROR)}},
        {"rules": {"p/slow": FAILED}, "stale": True},
        {"rules": {"p/slow": FAILED}, "case": replace(CASE, level=ContainmentLevel.ISOLATED)},
    ],
)
def test_there_is_no_deadline_where_time_alone_changes_nothing(changes: dict[str, object]) -> None:
    assert next_deadline(device(**changes), RULES) is None


def test_grace_period_that_ended_waits_for_the_end_of_a_probation() -> None:
    on_probation = replace(CASE, probation_until=START + 200)
    assert next_deadline(device(rules={"p/slow": FAILED}, case=on_probation), RULES) == START + 200


def test_grace_period_of_a_refused_report_has_no_deadline() -> None:
    refused = device(rules={"p/slow": FAILED}, refused_until=START + 300)
    assert next_deadline(refused, RULES) is None, "a new report is needed"
    assert next_deadline(replace(refused, reported_at=START + 300), RULES) == START + 60


def test_grace_period_contains_when_it_ends_unless_the_device_is_stale() -> None:
    slow = policies(rule("slow", RuleResponse(contain=ContainmentLevel.RESTRICTED, consecutive=2, grace=60.0)))
    play = given(device(), slow).when(reported("slow"), beat())
    play.when(ev.DeadlineReached("t"), at=START + 59).then_nothing()
    play.when(ev.DeadlineReached("t"), at=START + 60).then(RestrictClient("", "d1", "t", True))
    play.when(ev.DeviceWentStale("s", 300.0), ev.DeadlineReached("t"), at=START + 60).then_nothing()


def test_containment_after_a_grace_period_is_based_on_the_report() -> None:
    slow = policies(rule("slow", RuleResponse(contain=ContainmentLevel.RESTRICTED, grace=60.0)))
    play = given(device(), slow).when(reported("slow")).when(ev.DeadlineReached("t"), at=START + 60).then(restrict())
    assert (play.case.evidence_since, play.case.evidence_at) == (START, START + 60)
    play = play.when(ev.ContainmentRefused("n", "t", "later", by_a_later=True))
    later = START + 60 + LATER_PAUSE
    assert next_deadline(play.state, slow) is None, "the same words would be refused again"
    assert play.when(ev.DeadlineReached("t2"), at=later).then_nothing().state.case is None
    play = play.when(beat(at=later), at=later).then(restrict())
    assert play.case.evidence_since == later
