"""Says of every rule what it found on one device and why: the same judgement as `judge`, with its reasons laid open."""

from dataclasses import dataclass
from typing import Any, Final

from controller.domain.policy.cel import Language
from controller.domain.policy.evaluate import judge
from controller.domain.policy.facts import Facts
from controller.domain.policy.findings import Result, Severity
from controller.domain.policy.model import Mode, PolicySet, Response, Rule

MAX_VALUE: Final = 300  # characters of a fact's value that are shown


@dataclass(frozen=True, slots=True)
class FactShown:
    """A fact that a rule refers to: its value as text, or why it has none."""

    name: str
    value: str | None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One rule on one device: what was asked, what it was asked of, what came out, and what follows from a failure."""

    rule: str
    title: str
    mode: Mode
    result: Result
    detail: str
    check: str
    applies_if: str
    applies_to: str
    facts: tuple[FactShown, ...]
    severity: Severity
    why: str
    fix: str
    response: Response
    references: tuple[str, ...]


def explain(policies: PolicySet, language: Language, facts: Facts) -> tuple[Explanation, ...]:
    """One explanation for each rule, in the order of the policies."""
    findings = {finding.rule: finding for finding in judge(policies, language, facts)}
    explained: list[Explanation] = []
    for policy in policies.policies:
        scope = policy.applies_to
        for rule in policy.rules:
            finding = findings[rule.key]
            explained.append(
                Explanation(
                    rule=rule.key,
                    title=rule.title,
                    mode=rule.mode,
                    result=finding.result,
                    detail=finding.detail,
                    check=rule.check.text,
                    applies_if=rule.applies_if.text if rule.applies_if is not None else "",
                    applies_to=scope.text if scope is not None else "",
                    facts=_shown(rule, scope.uses if scope is not None else frozenset(), facts),
                    severity=rule.severity,
                    why=rule.why,
                    fix=rule.fix,
                    response=rule.response,
                    references=rule.references,
                )
            )
    return tuple(explained)


def _shown(rule: Rule, scope: frozenset[str], facts: Facts) -> tuple[FactShown, ...]:
    uses = rule.check.uses | scope
    if rule.applies_if is not None:
        uses |= rule.applies_if.uses
    return tuple(_show(name, facts) for name in sorted(uses))


def _show(name: str, facts: Facts) -> FactShown:
    if name in facts.known:
        return FactShown(name, _text(facts.known[name]), facts.partial.get(name, ""))
    missing = facts.missing.get(name)
    return FactShown(name, None, missing.reason if missing is not None else "not known")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, list):
        text = ", ".join(str(one) for one in value) or "(none)"
    else:
        text = str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
