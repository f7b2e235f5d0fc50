"""Explains the result of every rule for one device: the evaluation of `evaluate_policies` with its facts."""

from dataclasses import dataclass
from typing import Any, Final

from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import DeviceFacts
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import EnforcementMode, PolicyRule, PolicySet, RuleResponse

MAX_VALUE: Final = 300  # characters of a fact's value


@dataclass(frozen=True, slots=True)
class ExplainedFact:
    """A fact of a rule: its value as text, or why it is missing; `knowledge`: the entries that it rests on."""

    name: str
    value: str | None
    missing: str = ""
    knowledge: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """One rule for one device: its expressions, facts, result and response."""

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
    """Returns one explanation for each rule, in the order of the policies."""
    findings = {finding.rule: finding for finding in evaluate_policies(policies, language, facts)}
    explanations: list[RuleExplanation] = []
    for policy in policies.policies:
        scope = policy.applies_to
        for rule in policy.rules:
            finding = findings[rule.key]
            explanations.append(
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
    return tuple(explanations)


def _explained_facts(rule: PolicyRule, scope: frozenset[str], facts: DeviceFacts) -> tuple[ExplainedFact, ...]:
    uses = rule.check.uses | scope
    if rule.applies_if is not None:
        uses |= rule.applies_if.uses
    return tuple(_explained_fact(name, facts) for name in sorted(uses))


def _explained_fact(name: str, facts: DeviceFacts) -> ExplainedFact:
    entries = tuple(map(str, facts.rests_on.get(name, ())))
    if name in facts.known:
        return ExplainedFact(name, _format_fact(facts.known[name]), facts.partial.get(name, ""), entries)
    missing = facts.missing.get(name)
    return ExplainedFact(name, None, missing.reason if missing is not None else "not known", entries)


def _format_fact(value: Any) -> str:
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, list):
        text = ", ".join(map(str, value)) or "(none)"
    else:
        text = str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
