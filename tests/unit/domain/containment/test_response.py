"""The response that findings require, and the next deadline."""

from dataclasses import replace

import pytest

from controller.domain.containment.response import (
    REMEDY_PAUSE,
    counts_towards_release,
    is_response_due,
    merge_findings,
    repeat_findings,
    required_response,
)
from controller.domain.device import ContainmentCase, RuleState
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, Remedy, RuleResponse
from tests.support.playbook import START, policies, rule

FAILED = RuleState(RuleResult.FAIL, START, 1)
RULES = policies(
    rule("a", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("b", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=10.0)),
    rule("c", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=20.0)),
    rule("fix", RuleResponse(remedy=Remedy("rescan"))),
    rule("slow", RuleResponse(contain=ContainmentLevel.ISOLATED, grace=60.0)),
)
CASE = ContainmentCase("c", ContainmentLevel.RESTRICTED, ("p/a",), "policy", "", START, START)


def test_merge_keeps_unsatisfied_rules_and_counts_reports_in_a_row() -> None:
    old = {"p/a": FAILED, "p/b": FAILED, "p/c": RuleState(RuleResult.UNKNOWN, START, 4)}
    findings = (
        Finding("p/a", RuleResult.FAIL, "still"),
        Finding("p/b", RuleResult.PASS),
        Finding("p/c", RuleResult.FAIL),
        Finding("p/d", RuleResult.NOTAPPLICABLE),
        Finding("p/e", RuleResult.ERROR, "no"),
    )
    assert merge_findings(old, findings, START + 5) == {
        "p/a": RuleState(RuleResult.FAIL, START, 2, "still"),
        "p/c": RuleState(RuleResult.FAIL, START + 5, 1),
        "p/e": RuleState(RuleResult.ERROR, START + 5, 1, "no"),
    }


def test_repeated_findings_count_as_reports_in_a_row() -> None:
    assert repeat_findings({"p/a": FAILED})["p/a"].streak == 2


@pytest.mark.parametrize("result", [result for result in RuleResult if result is not RuleResult.FAIL])
def test_only_a_failure_requires_a_response(result: RuleResult) -> None:
    assert not is_response_due(replace(FAILED, result=result, streak=99), RuleResponse(), START + 1e9)
    assert is_response_due(FAILED, RuleResponse(), START)


def test_required_response_has_the_highest_level_and_the_longest_isolation() -> None:
    required = required_response({"p/a": FAILED, "p/b": FAILED, "p/c": FAILED, "p/gone": FAILED}, RULES, START)
    assert (required.level, required.isolate_for, required.causes) == (
        ContainmentLevel.ISOLATED,
        20.0,
        ("p/a", "p/b", "p/c"),
    )


def test_remedies_pause_and_are_limited() -> None:
    assert required_response({"p/fix": FAILED}, RULES, START).remedies == (("p/fix", Remedy("rescan")),)
    recent = replace(FAILED, remedies=1, last_remedy=START)
    assert required_response({"p/fix": recent}, RULES, START + REMEDY_PAUSE - 1).remedies == ()
    assert required_response({"p/fix": replace(recent, remedies=3)}, RULES, START + 1e6).remedies == ()


def test_release_needs_a_restriction_without_hold_and_every_cause_satisfied() -> None:
    nothing = required_response({}, RULES, START)
    assert counts_towards_release(CASE, {}, nothing, START)
    assert not counts_towards_release(replace(CASE, level=ContainmentLevel.ISOLATED), {}, nothing, START)
    assert not counts_towards_release(replace(CASE, hold_until=START + 1), {}, nothing, START)
    assert not counts_towards_release(CASE, {}, required_response({"p/a": FAILED}, RULES, START), START)
    assert not counts_towards_release(CASE, {"p/a": RuleState(RuleResult.UNKNOWN, START, 1)}, nothing, START)
