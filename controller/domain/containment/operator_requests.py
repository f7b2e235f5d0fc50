"""Containments and releases that operators request."""

from dataclasses import replace

from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment import cases, device_events, revocation
from controller.domain.device import ContainmentCase
from controller.domain.events import ContainmentOrdered, ReleaseOrdered
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import Transition


def on_containment_ordered(transition: Transition, event: ContainmentOrdered) -> None:
    """Contains the device; a case in force is taken over and never weakened."""
    if revocation.is_held_by_revocation(transition.device):
        revocation.keep_isolated(transition, event)
        return
    case, level, now = transition.device.case, event.level, transition.now
    if case is not None and case.level.rank > level.rank:
        transition.decision = DecisionKind.KEPT
        transition.add_audit(
            AuditKind.CONTAINMENT_KEPT, event.by, reason=event.reason, level=case.level.value, asked=level.value
        )
        return
    until = None if event.hold is None else now + event.hold
    is_isolation = level is ContainmentLevel.ISOLATED
    if case is None:
        case = ContainmentCase(transition.event_id, level, (), event.by, event.reason, now, now)
    case = replace(
        case,
        level=level,
        by=event.by,
        reason=event.reason,
        hold_until=cases.FOREVER if until is None else until,
        held_below=case.restriction_hold if is_isolation else 0.0,
        isolate_until=until if is_isolation else None,
        evidence_at=now,
        earliest_evidence_at=now,
    )
    transition.update_device(case=case, pending=None)
    transition.decision = DecisionKind.CONTAINED
    transition.add_audit(
        AuditKind.CONTAINMENT_DECIDED,
        event.by,
        level=level.value,
        causes=list(case.causes),
        reason=event.reason,
        until=until,
    )
    cases.emit_containment(transition, case, by_policy=False, options=event.options)


def on_release_ordered(transition: Transition, event: ReleaseOrdered) -> None:
    """Steps an isolation down to a restriction, or releases a restricted device."""
    if revocation.is_held_by_revocation(transition.device):
        revocation.keep_isolated(transition, event)
        return
    device_events.dismiss_event_holds(transition, event.by)
    # An agent that was downgraded to a version without nonces can report again.
    transition.update_device(answers=False)
    case = transition.device.case
    if case is None:
        transition.decision = DecisionKind.NOT_IN_FORCE
        transition.add_audit(AuditKind.CONTAINMENT_NOT_IN_FORCE, event.by, reason=event.reason)
    elif case.level is ContainmentLevel.ISOLATED:
        transition.decision = DecisionKind.STEPPED_DOWN
        reason = event.reason or "released by an operator"
        cases.end_isolation(transition, case, event.by, reason, hold_until=case.held_below)
    else:
        transition.decision = DecisionKind.RELEASED
        cases.close_case(transition, case, event.by, event.reason)
