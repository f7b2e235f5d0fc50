"""Says of every rule what it found on one device and why: the same judgement as `judge`, with its reasons laid open."""

from dataclasses import dataclass
from typing import Any, Final

from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import DeviceFacts
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import EnforcementMode, PolicyRule, PolicySet, RuleResponse

MAX_VALUE: Final = 300  # characters of a fact's value that are shown


@dataclass(frozen=True, slots=True)
class ExplainedFact:
    """A fact that a rule refers to: its value as text, or why it has none."""

    name: str
    value: str | None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """One rule on one device: what was asked, what it was asked of, what came out, and what follows from a failure."""

    rule: str
    title: str
    mode: EnforcementMode
    result: RuleResult
    detail: str
    check: str
    applies_if: str
    applies_to: str
    facts: tuple[ExplainedFact, ...]
    severity: Severity
    why: str
    fix: str
    response: RuleResponse
    references: tuple[str, ...]


def explain(policies: PolicySet, language: CelEnvironment, facts: DeviceFacts) -> tuple[RuleExplanation, ...]:
    """One explanation for each rule, in the order of the policies."""
    findings = {finding.rule: finding for finding in evaluate_policies(policies, language, facts)}
    explained: list[RuleExplanation] = []
    for policy in policies.policies:
        scope = policy.applies_to
        for rule in policy.rules:
            finding = findings[rule.key]
            explained.append(
                RuleExplanation(
                    rule=rule.key,
                    title=rule.title,
                    mode=rule.mode,
                    result=finding.result,
                    detail=finding.detail,
                    check=rule.check.text,
                    applies_if=rule.applies_if.text if rule.applies_if is not None else "",
                    applies_to=scope.text if scope is not None else "",
                    facts=_explained_facts(rule, scope.uses if scope is not None else frozenset(), facts),
                    severity=rule.severity,
                    why=rule.why,
                    fix=rule.fix,
                    response=rule.response,
                    references=rule.references,
                )
            )
    return tuple(explained)


def _explained_facts(rule: PolicyRule, scope: frozenset[str], facts: DeviceFacts) -> tuple[ExplainedFact, ...]:
    uses = rule.check.uses | scope
    if rule.applies_if is not None:
        uses |= rule.applies_if.uses
    return tuple(_explained_fact(name, facts) for name in sorted(uses))


def _explained_fact(name: str, facts: DeviceFacts) -> ExplainedFact:
    if name in facts.known:
        return ExplainedFact(name, _text(facts.known[name]), facts.partial.get(name, ""))
    missing = facts.missing.get(name)
    return ExplainedFact(name, None, missing.reason if missing is not None else "not known")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, list):
        text = ", ".join(str(one) for one in value) or "(none)"
    else:
        text = str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
