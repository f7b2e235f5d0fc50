"""Policies as values: never empty, ranks in order."""

import pytest

from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel, EmptyPolicyError, Policy, PolicySet
from tests.support.playbook import policies, rule


def test_no_policy_and_a_policy_without_rules_are_errors() -> None:
    with pytest.raises(EmptyPolicyError, match="no policy is loaded"):
        PolicySet((), "v")
    with pytest.raises(EmptyPolicyError, match="'p' has no rules"):
        PolicySet((Policy("p", 1, "t", ()),), "v")


def test_rules_are_found_by_their_key() -> None:
    assert list(policies(rule("a"), rule("b")).rules) == ["p/a", "p/b"]


def test_a_higher_level_includes_the_lower() -> None:
    assert sorted(ContainmentLevel, key=lambda one: one.rank) == [
        ContainmentLevel.NONE,
        ContainmentLevel.RESTRICTED,
        ContainmentLevel.ISOLATED,
    ]


def test_what_satisfies_a_rule() -> None:
    assert {one for one in RuleResult if one.is_satisfied} == {
        RuleResult.PASS,
        RuleResult.NOTAPPLICABLE,
        RuleResult.INFORMATIONAL,
        RuleResult.FIXED,
    }
