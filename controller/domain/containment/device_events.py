"""What follows from events: rules that are asked of what a device tells between its reports.

An event is a moment, not a state: no later report shows that it did not happen. So what follows stands for a set time
after the last one, and a restriction then still waits for a fresh report that passes. Who told it is vouched for, or
not, exactly as with a report: the broker is asked before anything is cut.
"""

from dataclasses import replace
from typing import Any, Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment import cases
from controller.domain.device import RuleState
from controller.domain.events import DeviceEventReported
from controller.domain.policy.event_rules import MAX_DETAIL
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import EventTerms
from controller.domain.transition import Transition
from schemas.base import MAX_COUNTER

_SHOWN: Final = frozenset({"source", "signature", "target"})  # of an event's detail, on record


def happened(draft: Transition, event: DeviceEventReported) -> None:
    """Keep the event on record, count it for the rules it breaks, and bring the device to what they ask for."""
    broken = [one.rule for one in event.findings if one.result is RuleResult.FAIL]
    undecided = {one.rule: one.detail for one in event.findings if one.result is not RuleResult.FAIL}
    more: dict[str, Any] = {name: text for name, text in event.detail if name in _SHOWN}
    if broken:
        more["rules"] = broken
    if undecided:
        more["undecided"] = undecided
    draft.record(
        AuditKind.DEVICE_EVENT_REPORTED,
        draft.device.device_id,
        event_kind=event.kind,
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
    cases.respond(draft, evidence_at=event.received_at or draft.now, may_release=False, evidence=event.evidence)


def _counted(
    old: RuleState | None, event: DeviceEventReported, enough: int, terms: EventTerms, now: float
) -> RuleState:
    if old is None or not old.until or now >= old.until:
        old = RuleState(RuleResult.INFORMATIONAL, now, 0)
    count = min(old.streak + event.count, MAX_COUNTER)
    is_due = count >= enough
    source = dict(event.detail).get("source", "")
    words = f"{count} of {event.kind}{' from ' + source if source else ''}: {event.summary}"
    return replace(
        old,
        result=RuleResult.FAIL if is_due else RuleResult.INFORMATIONAL,
        streak=count,
        detail=words[:MAX_DETAIL],
        until=now + terms.hold if is_due else old.since + terms.within,
    )


def expire(draft: Transition) -> None:
    """Forget what has stood its time."""
    rules = draft.device.rules
    over = [key for key, state in rules.items() if state.until and draft.now >= state.until]
    if not over:
        return
    draft.update(rules={key: state for key, state in rules.items() if key not in over})
    told = [key for key in over if rules[key].result is RuleResult.FAIL]
    if told:
        draft.record(AuditKind.EVENT_HOLD_EXPIRED, rules=told)


def dismiss(draft: Transition, by: str) -> None:
    """An operator releases the device: what the events asked for is dealt with."""
    told = [key for key, state in draft.device.rules.items() if state.until]
    if told:
        draft.update(rules={key: state for key, state in draft.device.rules.items() if key not in told})
        draft.record(AuditKind.EVENT_HOLD_DISMISSED, by, rules=told)
