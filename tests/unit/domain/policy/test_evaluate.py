"""Judging: a result for every rule, and no pass for want of facts."""

from typing import Any

import pytest

from controller.domain.policy.evaluate import MAX_CACHED, PolicyEvaluator, evaluate_policies
from controller.domain.policy.explain import MAX_VALUE, RuleExplanation, explain
from controller.domain.policy.facts import DeviceFacts, MissingFact
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, Policy, PolicyRule, PolicySet, RuleResponse
from tests.support.playbook import language, policies, rule

UNSEEN = MissingFact(RuleResult.UNKNOWN, "firewall: needs root")
ABSENT = MissingFact(RuleResult.NOTAPPLICABLE, "sockets: no network")
KNOWN: dict[str, Any] = {"os_id": "debian", "firewall_active": True, "listening_ports": [22], "exposed_ports": []}


def facts(
    known: dict[str, Any] | None = None,
    missing: dict[str, MissingFact] | None = None,
    partial: dict[str, str] | None = None,
) -> DeviceFacts:
    gone = missing or {}
    return DeviceFacts({k: v for k, v in {**KNOWN, **(known or {})}.items() if k not in gone}, gone, partial or {})


def one(made: PolicyRule, given: DeviceFacts) -> Finding:
    (finding,) = evaluate_policies(policies(made), language(), given)
    return finding


@pytest.mark.parametrize(
    ("check", "result"), [("firewall_active", RuleResult.PASS), ("!firewall_active", RuleResult.FAIL)]
)
def test_a_check_passes_or_fails(check: str, result: RuleResult) -> None:
    assert one(rule("a", check=check), facts()) == Finding("p/a", result)


@pytest.mark.parametrize("check", ["firewall_active", "true || firewall_active", "!firewall_active || true"])
def test_an_unknown_fact_makes_it_unknown_before_it_is_asked(check: str) -> None:
    found = one(rule("a", check=check), facts(missing={"firewall_active": UNSEEN}))
    assert found == Finding("p/a", RuleResult.UNKNOWN, "firewall: needs root")


def test_facts_that_a_rule_does_not_refer_to_do_not_matter() -> None:
    assert one(rule("a"), facts(missing={"exposed_ports": UNSEEN})).result is RuleResult.PASS


def test_what_is_unknown_outweighs_what_does_not_apply() -> None:
    check = "firewall_active && 23 in exposed_ports"
    both = {"exposed_ports": ABSENT, "firewall_active": UNSEEN}
    assert one(rule("a", check=check), facts(missing=both)).result is RuleResult.UNKNOWN
    assert one(rule("a", check=check), facts(missing={"exposed_ports": ABSENT})).result is RuleResult.NOTAPPLICABLE


def test_an_evaluation_error_is_an_error_and_bounded() -> None:
    found = one(rule("a", check="!older(os_id, '1', 'semver')"), facts({"os_id": "x" * 900}))
    assert found.result is RuleResult.ERROR
    assert 0 < len(found.detail) <= 200


def test_a_part_shows_presence_and_never_absence() -> None:
    absent, present = "!listening_ports.exists(p, p == 23)", "!listening_ports.exists(p, p == 22)"
    cut = facts(partial={"listening_ports": "3 more"})
    assert one(rule("a", check=absent), cut) == Finding("p/a", RuleResult.UNKNOWN, "3 more")
    assert one(rule("a", check=present), cut).result is RuleResult.FAIL


@pytest.mark.parametrize(
    ("scope", "given", "result", "detail"),
    [
        ("os_id == 'debian'", facts(), RuleResult.FAIL, ""),
        ("os_id == 'alpine'", facts(), RuleResult.NOTAPPLICABLE, "applies_if"),
        ("os_id == 'debian'", facts(missing={"os_id": UNSEEN}), RuleResult.UNKNOWN, "firewall: needs root"),
        ("os_id == 'debian'", facts(missing={"os_id": ABSENT}), RuleResult.NOTAPPLICABLE, "sockets: no network"),
        ("23 in listening_ports", facts(partial={"listening_ports": "3 more"}), RuleResult.UNKNOWN, "3 more"),
        ("older(os_id, '1', 'semver')", facts({"os_id": "!!"}), RuleResult.ERROR, None),
    ],
)
def test_a_scope_decides_before_the_check(
    scope: str, given: DeviceFacts, result: RuleResult, detail: str | None
) -> None:
    found = one(rule("a", check="!firewall_active", applies_if=language().compile(scope)), given)
    assert found.result is result
    assert detail is None or found.detail == detail


@pytest.mark.parametrize(
    ("scope", "given", "result", "detail"),
    [
        ("os_id == 'debian'", facts(), RuleResult.PASS, ""),
        ("os_id == 'alpine'", facts(), RuleResult.NOTAPPLICABLE, "applies_to"),
        ("os_id == 'debian'", facts(missing={"os_id": UNSEEN}), RuleResult.UNKNOWN, "firewall: needs root"),
    ],
)
def test_a_policy_outside_its_scope_still_gives_every_rule_a_result(
    scope: str, given: DeviceFacts, result: RuleResult, detail: str
) -> None:
    scoped = Policy("p", 1, "t", (rule("a"), rule("b")), language().compile(scope))
    found = evaluate_policies(PolicySet((scoped,), "v"), language(), given)
    assert found == (Finding("p/a", result, detail), Finding("p/b", result, detail))


def explained(made: PolicyRule, given: DeviceFacts) -> RuleExplanation:
    (one_rule,) = explain(policies(made), language(), given)
    return one_rule


def test_an_explanation_lays_open_what_was_asked_of_what() -> None:
    made = rule(
        "a",
        RuleResponse(contain=ContainmentLevel.RESTRICTED),
        "!listening_ports.exists(p, p == 22) && firewall_active",
        applies_if=language().compile("os_id == 'debian'"),
        why="because",
        fix="close it",
        references=("X:1",),
    )
    told = explained(made, facts())
    assert (told.rule, told.title, told.result, told.detail) == ("p/a", "Title of a", RuleResult.FAIL, "")
    assert told.check == "!listening_ports.exists(p, p == 22) && firewall_active"
    assert (told.applies_if, told.applies_to) == ("os_id == 'debian'", "")
    assert [(fact.name, fact.value) for fact in told.facts] == [
        ("firewall_active", "true"),
        ("listening_ports", "22"),
        ("os_id", "debian"),
    ]
    assert (told.why, told.fix, told.references, told.response.contain) == (
        "because",
        "close it",
        ("X:1",),
        ContainmentLevel.RESTRICTED,
    )


def test_an_explanation_says_why_a_fact_is_missing_or_a_part() -> None:
    told = explained(rule("a"), facts(missing={"firewall_active": UNSEEN}))
    assert (told.facts[0].value, told.facts[0].missing) == (None, "firewall: needs root")
    told = explained(rule("a", check="22 in listening_ports"), facts(partial={"listening_ports": "3 more"}))
    assert (told.facts[0].value, told.facts[0].missing) == ("22", "3 more")
    told = explained(rule("a", check="security_pending > 0"), facts())
    assert (told.facts[0].value, told.facts[0].missing) == (None, "not known")
    assert told.result is RuleResult.ERROR


def test_values_in_an_explanation_are_bounded_text() -> None:
    check = "exposed_ports.size() == 0 && listening_ports.size() > 0 && firewall_active"
    told = explained(rule("a", check=check), facts({"listening_ports": list(range(5000)), "firewall_active": False}))
    values = {fact.name: fact.value or "" for fact in told.facts}
    assert (values["exposed_ports"], values["firewall_active"]) == ("(none)", "false")
    assert len(values["listening_ports"]) == MAX_VALUE
    assert values["listening_ports"].endswith("...")


def test_the_scope_of_a_policy_is_explained_too() -> None:
    scoped = Policy("p", 1, "t", (rule("a"),), language().compile("os_id == 'alpine'"))
    (told,) = explain(PolicySet((scoped,), "v"), language(), facts())
    assert (told.applies_to, told.result) == ("os_id == 'alpine'", RuleResult.NOTAPPLICABLE)
    assert [fact.name for fact in told.facts] == ["firewall_active", "os_id"]


def test_a_judge_that_remembers_answers_like_one_that_does_not() -> None:
    scoped = Policy(
        "p",
        1,
        "t",
        (
            rule("a", check="firewall_active && 22 in listening_ports"),
            rule("b", check="!older(os_id, '1', 'semver')", applies_if=language().compile("os_id != 'debian'")),
        ),
        language().compile("exposed_ports.size() < 9"),
    )
    made = PolicySet((scoped,), "v")
    remembering = PolicyEvaluator(made, language())
    variants = [
        facts(),
        facts({"listening_ports": [23]}),
        facts({"firewall_active": False}),
        facts({"os_id": "1.0.0"}),
        facts({"os_id": "0.9.0"}),
        facts(missing={"firewall_active": UNSEEN}),
        facts(missing={"firewall_active": MissingFact(RuleResult.NOTAPPLICABLE, UNSEEN.reason)}),
        facts(missing={"exposed_ports": ABSENT}),
        facts(partial={"listening_ports": "3 more"}),
        facts(partial={"exposed_ports": "3 more"}),
    ]
    expected = [evaluate_policies(made, language(), one) for one in variants]
    assert [remembering(one) for one in variants] == expected
    assert [remembering(one) for one in variants] == expected


def test_a_judge_forgets_rather_than_grow() -> None:
    remembering = PolicyEvaluator(policies(rule("a", check="security_pending > 5")), language())
    for number in range(MAX_CACHED + 2):
        (finding,) = remembering(facts({"security_pending": number}))
        assert (finding.result is RuleResult.PASS) == (number > 5)
