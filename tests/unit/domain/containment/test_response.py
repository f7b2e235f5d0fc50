"""What findings ask for, and when to look again."""

from dataclasses import replace

import pytest

from controller.domain.containment.response import REMEDY_PAUSE, deadline, fold, is_due, releases, repeat, wanted
from controller.domain.device import ContainmentCase, RuleState
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, Remedy, RuleResponse
from tests.support.playbook import START, device, policies, rule

FAILED = RuleState(RuleResult.FAIL, START, 1)
RULES = policies(
    rule("a", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("b", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=10.0)),
    rule("c", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=20.0)),
    rule("fix", RuleResponse(remedy=Remedy("rescan"))),
    rule("slow", RuleResponse(contain=ContainmentLevel.ISOLATED, grace=60.0)),
)
CASE = ContainmentCase("c", ContainmentLevel.RESTRICTED, ("p/a",), "policy", "", START, START)


def test_fold_keeps_what_is_not_satisfied_and_counts_its_run() -> None:
    old = {"p/a": FAILED, "p/b": FAILED, "p/c": RuleState(RuleResult.UNKNOWN, START, 4)}
    findings = (
        Finding("p/a", RuleResult.FAIL, "still"),
        Finding("p/b", RuleResult.PASS),
        Finding("p/c", RuleResult.FAIL),
        Finding("p/d", RuleResult.NOTAPPLICABLE),
        Finding("p/e", RuleResult.ERROR, "no"),
    )
    assert fold(old, findings, START + 5) == {
        "p/a": RuleState(RuleResult.FAIL, START, 2, "still"),
        "p/c": RuleState(RuleResult.FAIL, START + 5, 1),
        "p/e": RuleState(RuleResult.ERROR, START + 5, 1, "no"),
    }


def test_repeat_counts_on() -> None:
    assert repeat({"p/a": FAILED})["p/a"].streak == 2


@pytest.mark.parametrize("result", [one for one in RuleResult if one is not RuleResult.FAIL])
def test_only_a_failure_is_ever_due(result: RuleResult) -> None:
    assert not is_due(replace(FAILED, result=result, streak=99), RuleResponse(), START + 1e9)
    assert is_due(FAILED, RuleResponse(), START)


def test_wanted_takes_the_highest_level_and_the_longest_isolation() -> None:
    want = wanted({"p/a": FAILED, "p/b": FAILED, "p/c": FAILED, "p/gone": FAILED}, RULES, START)
    assert (want.level, want.isolate_for, want.causes) == (ContainmentLevel.ISOLATED, 20.0, ("p/a", "p/b", "p/c"))


def test_wanted_repairs_with_pauses_and_not_for_ever() -> None:
    assert wanted({"p/fix": FAILED}, RULES, START).remedies == (("p/fix", Remedy("rescan")),)
    recent = replace(FAILED, remedies=1, last_remedy=START)
    assert wanted({"p/fix": recent}, RULES, START + REMEDY_PAUSE - 1).remedies == ()
    assert wanted({"p/fix": replace(recent, remedies=3)}, RULES, START + 1e6).remedies == ()


def test_releases_needs_every_cause_satisfied() -> None:
    nothing = wanted({}, RULES, START)
    assert releases(CASE, {}, nothing, START)
    assert not releases(replace(CASE, level=ContainmentLevel.ISOLATED), {}, nothing, START)
    assert not releases(replace(CASE, hold_until=START + 1), {}, nothing, START)
    assert not releases(CASE, {}, wanted({"p/a": FAILED}, RULES, START), START)
    assert not releases(CASE, {"p/a": RuleState(RuleResult.UNKNOWN, START, 1)}, nothing, START)


def test_deadline_of_an_isolation_and_of_a_grace() -> None:
    assert deadline(device(), RULES) is None
    isolated = replace(CASE, level=ContainmentLevel.ISOLATED, isolate_until=START + 5)
    assert deadline(device(case=isolated), RULES) == START + 5
    assert deadline(device(case=replace(isolated, isolate_until=None)), RULES) is None
    assert deadline(device(rules={"p/slow": FAILED}), RULES) == START + 60


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
def test_no_deadline_where_time_alone_changes_nothing(changes: dict[str, object]) -> None:
    assert deadline(device(**changes), RULES) is None


def test_a_grace_that_is_over_waits_for_the_end_of_a_probation() -> None:
    on_probation = replace(CASE, probation_until=START + 200)
    assert deadline(device(rules={"p/slow": FAILED}, case=on_probation), RULES) == START + 200


def test_a_grace_that_is_over_waits_after_a_refusal() -> None:
    refused = device(rules={"p/slow": FAILED}, refused_until=START + 300)
    assert deadline(refused, RULES) is None, "it takes news"
    assert deadline(replace(refused, reported_at=START + 300), RULES) == START + 60
