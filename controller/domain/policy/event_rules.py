"""Rules about device events: the facts they may use, and their evaluation."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from controller.domain.policy.cel import CelEnvironment, CelExpression, EvaluationError, evaluate
from controller.domain.policy.findings import Finding, RuleResult, Severity
from controller.domain.policy.model import Policy
from schemas.events import DeviceEvent

_INTRUSION: Final = "intrusion."

_RANKS: Final = {severity.value: rank for rank, severity in enumerate(Severity)}

MAX_DETAIL: Final = 200  # characters of the explanation kept with a rule

# Every fact that a rule about events may refer to: its type and its meaning.
EVENT_CATALOGUE: Final[dict[str, tuple[str, str]]] = {
    "device.id": ("string", "the device's id"),
    "device.class": ("string", "the class an operator gave the device, or empty"),
    "device.tags": ("list(string)", "the tags an operator gave the device"),
    "event.kind": ("string", "what happened: `intrusion.suricata`, `login.failed`, `command.refused`, ..."),
    "event.severity": ("string", "info, low, medium, high or critical, as the device grades it"),
    "event.rank": ("int", "the same as a number to compare: 0 for info to 4 for critical"),
    "event.count": ("int", "how often it happened since it was last told"),
    "event.summary": ("string", "in words"),
    "event.monitor": ("string", "for alerts of a monitor its name: suricata, snort, wazuh, ossec, flood; else empty"),
    "event.signature": ("string", "the monitor's own id of what it saw; unknown where there is none"),
    "event.source": ("string", "where it came from, an address mostly; unknown where there is none"),
    "event.target": ("string", "what it was aimed at; unknown where there is none"),
    "event.detail": ("map(string,string)", 'everything else that the event tells: `event.detail["first_at"]`'),
}

EVENT_TYPES: Final = {name: kind for name, (kind, _) in EVENT_CATALOGUE.items()}

DEVICE_FACTS: Final = frozenset(name for name in EVENT_CATALOGUE if name.startswith("device."))


@cache
def event_language() -> CelEnvironment:
    """The rule language with the facts of an event."""
    return CelEnvironment(EVENT_TYPES)


def event_facts(
    event: DeviceEvent, device_id: str, device_class: str = "", tags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The facts of one event; what it does not tell is left out."""
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
    """A finding for each rule that the event breaks (`fail`), or that cannot be decided for want of facts (`unknown`).

    A rule of which one half decides is decided: `event.kind == "x" && event.source == "y"` is no for another kind,
    whether there is a source or not.
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
    """Yes or no, or why there is no answer."""
    try:
        return evaluate(expression, activation)
    except EvaluationError as e:
        absent = sorted(expression.uses - facts.keys())
        return f"the event has no {', '.join(absent)}" if absent else str(e)[:MAX_DETAIL]
