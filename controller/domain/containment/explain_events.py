"""Says of every rule about events what it asked of one event, or how it stands on a device, and what follows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from controller.domain.device import Device, RuleState
from controller.domain.policy.event_rules import judge_event
from controller.domain.policy.explain import MAX_VALUE, FactShown
from controller.domain.policy.findings import Finding, Result, Severity
from controller.domain.policy.model import EventTerms, Mode, Policy, PolicySet, Response, Rule


@dataclass(frozen=True, slots=True)
class EventExplanation:
    """One rule about events: what it asks, what came out, and what follows; `until` is 0 where nothing stands."""

    rule: str
    title: str
    mode: Mode
    result: Result
    detail: str
    when: str
    applies_to: str
    facts: tuple[FactShown, ...]
    severity: Severity
    why: str
    fix: str
    response: Response
    terms: EventTerms
    references: tuple[str, ...]
    until: float = 0.0


def explain_event(policies: Collection[Policy], facts: Mapping[str, Any]) -> tuple[EventExplanation, ...]:
    """Every rule about events, asked of one event: `fail` where the event breaks it."""
    found = {finding.rule: finding for finding in judge_event(policies, facts)}
    return tuple(
        _explained(rule, found.get(rule.key, Finding(rule.key, Result.PASS)), _shown(rule, facts))
        for policy in policies
        for rule in policy.events
    )


def explain_standing(policies: PolicySet, device: Device) -> tuple[EventExplanation, ...]:
    """Every rule about events as it stands on a device: `fail` asks for something, `informational` still counts."""
    nothing = RuleState(Result.PASS, 0.0, 0)
    found = []
    for policy in policies.policies:
        for rule in policy.events:
            state = device.rules.get(rule.key, nothing)
            found.append(_explained(rule, Finding(rule.key, state.result, state.detail), (), state.until))
    return tuple(found)


def _explained(rule: Rule, finding: Finding, facts: tuple[FactShown, ...], until: float = 0.0) -> EventExplanation:
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


def _shown(rule: Rule, facts: Mapping[str, Any]) -> tuple[FactShown, ...]:
    uses = rule.check.uses | (rule.applies_if.uses if rule.applies_if is not None else frozenset())
    return tuple(
        FactShown(name, _text(facts[name])) if name in facts else FactShown(name, None, "the event does not tell it")
        for name in sorted(uses)
    )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name}={text}" for name, text in value.items()]
    text = ", ".join(map(str, value)) or "(none)" if isinstance(value, list) else str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
