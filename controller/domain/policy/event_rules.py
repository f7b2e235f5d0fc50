"""Rules about device events: the facts of an event, and their evaluation."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from controller.domain.policy.cel import CelEnvironment, CelExpression, EvaluationError, evaluate
from controller.domain.policy.findings import Finding, RuleResult, Severity
from controller.domain.policy.model import Policy
from schemas.events import DeviceEvent

_INTRUSION: Final = "intrusion."

_RANKS: Final = {severity.value: rank for rank, severity in enumerate(Severity)}

MAX_DETAIL: Final = 200  # characters of a finding's detail

# Every fact of an event: its type and its meaning.
EVENT_CATALOGUE: Final[dict[str, tuple[str, str]]] = {
    "device.id": ("string", "the device's id"),
    "device.class": ("string", "the class an operator gave the device, or empty"),
    "device.tags": ("list(string)", "the tags an operator gave the device"),
    "event.kind": ("string", "what happened: `intrusion.suricata`, `login.failed`, `command.refused`, ..."),
    "event.severity": ("string", "info, low, medium, high or critical, as the device reports it"),
    "event.rank": ("int", "the same as a number to compare: 0 for info to 4 for critical"),
    "event.count": ("int", "how often it happened since the last event of the kind"),
    "event.summary": ("string", "description"),
    "event.monitor": ("string", "name of the intrusion monitor: suricata, snort, wazuh, ossec, flood; else empty"),
    "event.signature": ("string", "the monitor's id of the attack; unknown without one"),
    "event.source": ("string", "source of the attack, mostly an address; unknown without one"),
    "event.target": ("string", "target of the attack; unknown without one"),
    "event.detail": ("map(string,string)", 'all details of the event: `event.detail["first_at"]`'),
}

EVENT_TYPES: Final = {name: kind for name, (kind, _) in EVENT_CATALOGUE.items()}

DEVICE_FACTS: Final = frozenset(name for name in EVENT_CATALOGUE if name.startswith("device."))


@cache
def event_language() -> CelEnvironment:
    """Returns the rule language with the facts of an event."""
    return CelEnvironment(EVENT_TYPES)


def event_facts(
    event: DeviceEvent, device_id: str, device_class: str = "", tags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Returns the facts of one event; absent details are left out."""
    facts: dict[str, Any] = {
        "device.id": device_id,
        "device.class": device_class,
        "device.tags": list(tags),
        "event.kind": event.kind,
        "event.severity": event.severity,
        "event.rank": _RANKS[event.severity],
        "event.count": event.count,
        "event.summary": event.summary,
        "event.monitor": event.kind.removeprefix(_INTRUSION) if event.kind.startswith(_INTRUSION) else "",
        "event.detail": dict(event.detail),
    }
    for name in ("signature", "source", "target"):
        if name in event.detail:
            facts[f"event.{name}"] = event.detail[name]
    return facts


def evaluate_event(policies: Iterable[Policy], facts: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Returns a finding for each rule that the event breaks (`fail`) or that lacks a fact (`unknown`).

    A rule that one operand decides needs no other facts: `event.kind == "x" && event.source == "y"` is false for
    another kind, with or without a source.
    """
    activation: Any = None
    findings: list[Finding] = []
    for policy in policies:
        for rule in policy.events:
            if activation is None:
                activation = event_language().activation(facts)
            applies = True if rule.applies_if is None else _evaluate_expression(rule.applies_if, facts, activation)
            if applies is False:
                continue
            breaks = _evaluate_expression(rule.check, facts, activation) if applies is True else applies
            if isinstance(breaks, str):
                findings.append(Finding(rule.key, RuleResult.UNKNOWN, breaks))
            elif breaks:
                findings.append(Finding(rule.key, RuleResult.FAIL))
    return tuple(findings)


def _evaluate_expression(expression: CelExpression, facts: Mapping[str, Any], activation: Any) -> bool | str:
    """Returns the value, or why there is none."""
    try:
        return evaluate(expression, activation)
    except EvaluationError as e:
        absent = sorted(expression.uses - facts.keys())
        return f"the event has no {', '.join(absent)}" if absent else str(e)[:MAX_DETAIL]
