"""Policies as values."""

import pytest

from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel, EmptyPolicyError, Policy, PolicySet
from tests.support.playbook import policies, rule


def test_no_policy_and_a_policy_without_rules_are_errors() -> None:
    with pytest.raises(EmptyPolicyError, match="no policy is loaded"):
        PolicySet((), "v")
    with pytest.raises(EmptyPolicyError, match="'p' has no rules"):
        PolicySet((Policy("p", 1, "t", ()),), "v")


def test_rules_are_indexed_by_key() -> None:
    assert list(policies(rule("a"), rule("b")).rules) == ["p/a", "p/b"]


def test_levels_are_ranked() -> None:
    assert sorted(ContainmentLevel, key=lambda each: each.rank) == [
        ContainmentLevel.NONE,
        ContainmentLevel.RESTRICTED,
        ContainmentLevel.ISOLATED,
    ]


def test_results_that_satisfy_a_rule() -> None:
    assert {result for result in RuleResult if result.is_satisfied} == {
        RuleResult.PASS,
        RuleResult.NOTAPPLICABLE,
        RuleResult.INFORMATIONAL,
        RuleResult.FIXED,
    }
