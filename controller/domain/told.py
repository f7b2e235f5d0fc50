"""What follows from events: rules that are asked of what a device tells between its reports.

An event is a moment, not a state: no later report shows that it did not happen. So what follows stands for a set time
after the last one, and a restriction then still waits for a fresh report that passes. Who told it is vouched for, or
not, exactly as with a report: the broker is asked before anything is cut.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

from controller.domain import contain
from controller.domain.device import RuleState
from controller.domain.draft import Draft
from controller.domain.events import DeviceTold
from controller.domain.findings import Finding, Result, Severity
from controller.domain.policy import EventTerms, Policy
from controller.domain.rules import EvaluationError, Expression, Language, evaluate
from schemas.base import MAX_COUNTER
from schemas.events import DeviceEvent

MAX_DETAIL: Final = 200  # characters of the words kept with a rule
_SHOWN: Final = frozenset({"source", "signature", "target"})  # of an event's detail, on record
_INTRUSION: Final = "intrusion."
_RANKS: Final = {severity.value: rank for rank, severity in enumerate(Severity)}
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
def event_language() -> Language:
    """The rule language with the facts of an event."""
    return Language(EVENT_TYPES)


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


def judge_event(policies: Iterable[Policy], facts: Mapping[str, Any]) -> tuple[Finding, ...]:
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
            applies = True if rule.applies_if is None else _answer(rule.applies_if, facts, activation)
            if applies is False:
                continue
            breaks = _answer(rule.check, facts, activation) if applies is True else applies
            if isinstance(breaks, str):
                findings.append(Finding(rule.key, Result.UNKNOWN, breaks))
            elif breaks:
                findings.append(Finding(rule.key, Result.FAIL))
    return tuple(findings)


def _answer(expression: Expression, facts: Mapping[str, Any], activation: Any) -> bool | str:
    """Yes or no, or why there is no answer."""
    try:
        return evaluate(expression, activation)
    except EvaluationError as e:
        absent = sorted(expression.uses - facts.keys())
        return f"the event has no {', '.join(absent)}" if absent else str(e)[:MAX_DETAIL]


def happened(draft: Draft, event: DeviceTold) -> None:
    """Keep the event on record, count it for the rules it breaks, and bring the device to what they ask for."""
    broken = [one.rule for one in event.findings if one.result is Result.FAIL]
    undecided = {one.rule: one.detail for one in event.findings if one.result is not Result.FAIL}
    more: dict[str, Any] = {name: text for name, text in event.detail if name in _SHOWN}
    if broken:
        more["rules"] = broken
    if undecided:
        more["undecided"] = undecided
    draft.record(
        f"device event: {event.kind}",
        draft.device.device_id,
        severity=event.severity,
        count=event.count,
        summary=event.summary,
        evidence=event.evidence.value,
        **more,
    )
    rules = dict(draft.device.rules)
    for key in broken:
        rule = draft.policies.rules.get(key)
        if rule is not None and rule.event is not None:
            rules[key] = _counted(rules.get(key), event, rule.response.consecutive, rule.event, draft.now)
    if not broken:
        return
    draft.update(rules=rules)
    contain.respond(draft, evidence_at=event.received_at or draft.now, may_release=False, evidence=event.evidence)


def _counted(old: RuleState | None, event: DeviceTold, enough: int, terms: EventTerms, now: float) -> RuleState:
    if old is None or not old.until or now >= old.until:
        old = RuleState(Result.INFORMATIONAL, now, 0)
    count = min(old.streak + event.count, MAX_COUNTER)
    is_due = count >= enough
    source = dict(event.detail).get("source", "")
    words = f"{count} of {event.kind}{' from ' + source if source else ''}: {event.summary}"
    return replace(
        old,
        result=Result.FAIL if is_due else Result.INFORMATIONAL,
        streak=count,
        detail=words[:MAX_DETAIL],
        until=now + terms.hold if is_due else old.since + terms.within,
    )


def expire(draft: Draft) -> None:
    """Forget what has stood its time."""
    rules = draft.device.rules
    over = [key for key, state in rules.items() if state.until and draft.now >= state.until]
    if not over:
        return
    draft.update(rules={key: state for key, state in rules.items() if key not in over})
    told = [key for key in over if rules[key].result is Result.FAIL]
    if told:
        draft.record("events have stood their time", rules=told)


def dismiss(draft: Draft, by: str) -> None:
    """An operator releases the device: what the events asked for is dealt with."""
    told = [key for key, state in draft.device.rules.items() if state.until]
    if told:
        draft.update(rules={key: state for key, state in draft.device.rules.items() if key not in told})
        draft.record("events dismissed", by, rules=told)
