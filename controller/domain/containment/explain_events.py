"""Explains the rules about device events: for one event, or for the active holds of a device."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from controller.domain.device import Device, RuleState
from controller.domain.policy.event_rules import evaluate_event
from controller.domain.policy.explain import MAX_VALUE, ExplainedFact
from controller.domain.policy.findings import Finding, RuleResult, Severity
from controller.domain.policy.model import EnforcementMode, EventTerms, Policy, PolicyRule, PolicySet, RuleResponse


@dataclass(frozen=True, slots=True)
class EventExplanation:
    """One rule about events: its check, the result and the response; `until` is 0 without an active hold."""

    rule: str
    title: str
    mode: EnforcementMode
    result: RuleResult
    detail: str
    when: str
    applies_to: str
    facts: tuple[ExplainedFact, ...]
    severity: Severity
    why: str
    fix: str
    response: RuleResponse
    terms: EventTerms
    references: tuple[str, ...]
    until: float = 0.0


def explain_event(policies: Collection[Policy], facts: Mapping[str, Any]) -> tuple[EventExplanation, ...]:
    """Explains every rule about events for one event: `fail` if the event breaks it."""
    findings = {finding.rule: finding for finding in evaluate_event(policies, facts)}
    return tuple(
        _explained(rule, findings.get(rule.key, Finding(rule.key, RuleResult.PASS)), _explained_facts(rule, facts))
        for policy in policies
        for rule in policy.events
    )


def explain_active_holds(policies: PolicySet, device: Device) -> tuple[EventExplanation, ...]:
    """Explains every rule about events for a device: `fail` requires a response, `informational` still counts."""
    no_hold = RuleState(RuleResult.PASS, 0.0, 0)
    explanations = []
    for policy in policies.policies:
        for rule in policy.events:
            state = device.rules.get(rule.key, no_hold)
            explanations.append(_explained(rule, Finding(rule.key, state.result, state.detail), (), state.until))
    return tuple(explanations)


def _explained(
    rule: PolicyRule, finding: Finding, facts: tuple[ExplainedFact, ...], until: float = 0.0
) -> EventExplanation:
    return EventExplanation(
        rule=rule.key,
        title=rule.title,
        mode=rule.mode,
        result=finding.result,
        detail=finding.detail,
        when=rule.check.text,
        applies_to="" if rule.applies_if is None else rule.applies_if.text,
        facts=facts,
        severity=rule.severity,
        why=rule.why,
        fix=rule.fix,
        response=rule.response,
        terms=rule.event or EventTerms(),
        references=rule.references,
        until=until,
    )


def _explained_facts(rule: PolicyRule, facts: Mapping[str, Any]) -> tuple[ExplainedFact, ...]:
    uses = rule.check.uses | (rule.applies_if.uses if rule.applies_if is not None else frozenset())
    return tuple(
        ExplainedFact(name, _format_fact(facts[name]))
        if name in facts
        else ExplainedFact(name, None, "not part of the event")
        for name in sorted(uses)
    )


def _format_fact(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name}={text}" for name, text in value.items()]
    text = ", ".join(map(str, value)) or "(none)" if isinstance(value, list) else str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
