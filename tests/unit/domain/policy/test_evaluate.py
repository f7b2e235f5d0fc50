"""Evaluation of policies: a result for every rule, and no pass for lack of facts."""

from typing import Any

import pytest

from controller.domain.policy.evaluate import PolicyEvaluator, evaluate_policies
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
    missing = missing or {}
    values = {name: value for name, value in {**KNOWN, **(known or {})}.items() if name not in missing}
    return DeviceFacts(values, missing, partial or {})


def evaluated(tested: PolicyRule, given: DeviceFacts) -> Finding:
    (finding,) = evaluate_policies(policies(tested), language(), given)
    return finding


@pytest.mark.parametrize(
    ("check", "result"), [("firewall_active", RuleResult.PASS), ("!firewall_active", RuleResult.FAIL)]
)
def test_check_passes_or_fails(check: str, result: RuleResult) -> None:
    assert evaluated(rule("a", check=check), facts()) == Finding("p/a", result)


@pytest.mark.parametrize("check", ["firewall_active", "true || firewall_active", "!firewall_active || true"])
def test_unknown_fact_makes_the_rule_unknown_without_an_evaluation(check: str) -> None:
    finding = evaluated(rule("a", check=check), facts(missing={"firewall_active": UNSEEN}))
    assert finding == Finding("p/a", RuleResult.UNKNOWN, "firewall: needs root")


@pytest.mark.parametrize(
    "check", ["firewall_active && 23 in listening_ports", "23 in listening_ports && firewall_active"]
)
def test_a_rule_fails_when_what_is_known_already_fails(check: str) -> None:
    assert evaluated(rule("a", check=check), facts(missing={"firewall_active": UNSEEN})) == Finding(
        "p/a", RuleResult.FAIL
    )
    # Not applicable is no unknown fact: the rule does not concern this device.
    absent = facts(missing={"firewall_active": ABSENT})
    assert evaluated(rule("a", check=check), absent).result is RuleResult.NOTAPPLICABLE


@pytest.mark.parametrize(
    "check", ["listening_ports.size() > 3", "23 in listening_ports", "listening_ports.size() == 5"]
)
def test_a_rule_that_more_entries_could_satisfy_does_not_fail_on_a_part(check: str) -> None:
    finding = evaluated(rule("a", check=check), facts(partial={"listening_ports": "3 more"}))
    assert finding == Finding("p/a", RuleResult.UNKNOWN, "3 more")


def test_other_missing_facts_do_not_matter() -> None:
    assert evaluated(rule("a"), facts(missing={"exposed_ports": UNSEEN})).result is RuleResult.PASS


def test_unknown_takes_precedence_over_not_applicable() -> None:
    check = "firewall_active && 23 in exposed_ports"
    both = {"exposed_ports": ABSENT, "firewall_active": UNSEEN}
    assert evaluated(rule("a", check=check), facts(missing=both)).result is RuleResult.UNKNOWN
    assert (
        evaluated(rule("a", check=check), facts(missing={"exposed_ports": ABSENT})).result is RuleResult.NOTAPPLICABLE
    )


def test_evaluation_error_has_a_bounded_text() -> None:
    finding = evaluated(rule("a", check="!older(os_id, '1', 'semver')"), facts({"os_id": "x" * 900}))
    assert finding.result is RuleResult.ERROR
    assert 0 < len(finding.detail) <= 200


def test_partial_list_shows_presence_and_never_absence() -> None:
    absent, present = "!listening_ports.exists(p, p == 23)", "!listening_ports.exists(p, p == 22)"
    truncated = facts(partial={"listening_ports": "3 more"})
    assert evaluated(rule("a", check=absent), truncated) == Finding("p/a", RuleResult.UNKNOWN, "3 more")
    assert evaluated(rule("a", check=present), truncated).result is RuleResult.FAIL


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
def test_scope_is_evaluated_before_the_check(
    scope: str, given: DeviceFacts, result: RuleResult, detail: str | None
) -> None:
    finding = evaluated(rule("a", check="!firewall_active", applies_if=language().compile(scope)), given)
    assert finding.result is result
    assert detail is None or finding.detail == detail


@pytest.mark.parametrize(
    ("scope", "given", "result", "detail"),
    [
        ("os_id == 'debian'", facts(), RuleResult.PASS, ""),
        ("os_id == 'alpine'", facts(), RuleResult.NOTAPPLICABLE, "applies_to"),
        ("os_id == 'debian'", facts(missing={"os_id": UNSEEN}), RuleResult.UNKNOWN, "firewall: needs root"),
    ],
)
def test_policy_outside_its_scope_gives_every_rule_a_result(
    scope: str, given: DeviceFacts, result: RuleResult, detail: str
) -> None:
    scoped = Policy("p", 1, "t", (rule("a"), rule("b")), language().compile(scope))
    findings = evaluate_policies(PolicySet((scoped,), "v"), language(), given)
    assert findings == (Finding("p/a", result, detail), Finding("p/b", result, detail))


def explained(tested: PolicyRule, given: DeviceFacts) -> RuleExplanation:
    (explanation,) = explain(policies(tested), language(), given)
    return explanation


def test_explanation_has_expressions_facts_and_response() -> None:
    tested = rule(
        "a",
        RuleResponse(contain=ContainmentLevel.RESTRICTED),
        "!listening_ports.exists(p, p == 22) && firewall_active",
        applies_if=language().compile("os_id == 'debian'"),
        why="because",
        fix="close it",
        references=("X:1",),
    )
    explanation = explained(tested, facts())
    assert (explanation.rule, explanation.title, explanation.result, explanation.detail) == (
        "p/a",
        "Title of a",
        RuleResult.FAIL,
        "",
    )
    assert explanation.check == "!listening_ports.exists(p, p == 22) && firewall_active"
    assert (explanation.applies_if, explanation.applies_to) == ("os_id == 'debian'", "")
    assert [(fact.name, fact.value) for fact in explanation.facts] == [
        ("firewall_active", "true"),
        ("listening_ports", "22"),
        ("os_id", "debian"),
    ]
    assert (explanation.why, explanation.fix, explanation.references, explanation.response.contain) == (
        "because",
        "close it",
        ("X:1",),
        ContainmentLevel.RESTRICTED,
    )


def test_explanation_says_why_a_fact_is_missing_or_partial() -> None:
    explanation = explained(rule("a"), facts(missing={"firewall_active": UNSEEN}))
    assert (explanation.facts[0].value, explanation.facts[0].missing) == (None, "firewall: needs root")
    explanation = explained(rule("a", check="22 in listening_ports"), facts(partial={"listening_ports": "3 more"}))
    assert (explanation.facts[0].value, explanation.facts[0].missing) == ("22", "3 more")
    explanation = explained(rule("a", check="security_pending > 0"), facts())
    assert (explanation.facts[0].value, explanation.facts[0].missing) == (None, "not known")
    assert explanation.result is RuleResult.ERROR


def test_values_of_an_explanation_are_bounded() -> None:
    check = "exposed_ports.size() == 0 && listening_ports.size() > 0 && firewall_active"
    explanation = explained(
        rule("a", check=check), facts({"listening_ports": list(range(5000)), "firewall_active": False})
    )
    values = {fact.name: fact.value or "" for fact in explanation.facts}
    assert (values["exposed_ports"], values["firewall_active"]) == ("(none)", "false")
    assert len(values["listening_ports"]) == MAX_VALUE
    assert values["listening_ports"].endswith("...")


def test_explanation_has_the_scope_of_the_policy() -> None:
    scoped = Policy("p", 1, "t", (rule("a"),), language().compile("os_id == 'alpine'"))
    (explanation,) = explain(PolicySet((scoped,), "v"), language(), facts())
    assert (explanation.applies_to, explanation.result) == ("os_id == 'alpine'", RuleResult.NOTAPPLICABLE)
    assert [fact.name for fact in explanation.facts] == ["firewall_active", "os_id"]


def test_cached_findings_equal_evaluated_ones() -> None:
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
    policy_set = PolicySet((scoped,), "v")
    evaluator = PolicyEvaluator(policy_set, language())
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
    expected = [evaluate_policies(policy_set, language(), variant) for variant in variants]
    assert [evaluator(variant) for variant in variants] == expected
    assert [evaluator(variant) for variant in variants] == expected


@pytest.mark.parametrize("size", [1, 40_000])
def test_cache_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A device chooses how large its facts are: eight devices filled a cache of 4,096 entries with 260 MiB."""
    monkeypatch.setattr("controller.domain.policy.evaluate.MAX_CACHED_BYTES", 1_000_000)
    evaluator = PolicyEvaluator(policies(rule("a", check="security_pending > 5 && os_id != ''")), language())
    most = 0
    for number in range(300):
        (finding,) = evaluator(facts({"security_pending": number, "os_id": f"{number}" + "x" * size}))
        assert (finding.result is RuleResult.PASS) == (number > 5)
        most = max(most, evaluator.cached_bytes)
    assert 50_000 < most <= 1_000_000


def test_cached_bytes_are_counted_where_facts_are_lists() -> None:
    evaluator = PolicyEvaluator(policies(rule("a", check="listening_processes.size() > 0")), language())
    evaluator(facts({"listening_processes": ["x" * 100 + str(n) for n in range(1000)]}))
    assert evaluator.cached_bytes > 100_000
