"""Rules about device events: counts the events that break a rule and applies the response.

An event is a moment, not a state: no later report shows that it did not happen. Its response therefore holds for a set
time after the last event, and a restriction then ends with a fresh passing report. The sender of an event is
authenticated as the sender of a report is: at the broker, before the device is contained.
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

MAX_AUDITED: Final = 256  # characters of each text of a device in the audit
_AUDITED_DETAIL: Final = frozenset({"source", "signature", "target"})


def on_device_event(transition: Transition, event: DeviceEventReported) -> None:
    """Records the event, counts it for the rules that it breaks, and applies their response."""
    broken = [finding.rule for finding in event.findings if finding.result is RuleResult.FAIL]
    undecided = {finding.rule: finding.detail for finding in event.findings if finding.result is not RuleResult.FAIL}
    detail: dict[str, Any] = {name: text[:MAX_AUDITED] for name, text in event.detail if name in _AUDITED_DETAIL}
    if broken:
        detail["rules"] = broken
    if undecided:
        detail["undecided"] = undecided
    transition.add_audit(
        AuditKind.DEVICE_EVENT_REPORTED,
        transition.device.device_id,
        event_kind=event.kind,
        severity=event.severity,
        count=event.count,
        summary=event.summary[:MAX_AUDITED],
        evidence=event.evidence.value,
        **detail,
    )
    if not broken:
        return
    rules = dict(transition.device.rules)
    for key in broken:
        rule = transition.policies.rules.get(key)
        if rule is not None and rule.event is not None:
            rules[key] = _count_event(rules.get(key), event, rule.response.consecutive, rule.event, transition.now)
    transition.update_device(rules=rules)
    evidence_at = event.received_at or transition.now
    cases.apply_response(transition, evidence_at=evidence_at, may_release=False, evidence=event.evidence)


def _count_event(
    old: RuleState | None, event: DeviceEventReported, threshold: int, terms: EventTerms, now: float
) -> RuleState:
    if old is None or not old.until or now >= old.until:
        old = RuleState(RuleResult.INFORMATIONAL, now, 0)
    count = min(old.streak + event.count, MAX_COUNTER)
    is_due = count >= threshold
    source = dict(event.detail).get("source", "")
    text = f"{count} of {event.kind}{' from ' + source if source else ''}: {event.summary}"
    return replace(
        old,
        result=RuleResult.FAIL if is_due else RuleResult.INFORMATIONAL,
        streak=count,
        detail=text[:MAX_DETAIL],
        until=now + terms.hold if is_due else old.since + terms.within,
    )


def expire_event_holds(transition: Transition) -> None:
    """Drops rules about events whose time is over."""
    rules = transition.device.rules
    expired = [key for key, state in rules.items() if state.until and transition.now >= state.until]
    if not expired:
        return
    transition.update_device(rules={key: state for key, state in rules.items() if key not in expired})
    failed = [key for key in expired if rules[key].result is RuleResult.FAIL]
    if failed:
        transition.add_audit(AuditKind.EVENT_HOLD_EXPIRED, rules=failed)


def dismiss_event_holds(transition: Transition, by: str) -> None:
    """Drops all rules about events, because an operator releases the device."""
    rules = transition.device.rules
    held = [key for key, state in rules.items() if state.until]
    if held:
        transition.update_device(rules={key: state for key, state in rules.items() if key not in held})
        transition.add_audit(AuditKind.EVENT_HOLD_DISMISSED, by, rules=held)
