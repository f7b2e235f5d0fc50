"""Isolation of a device whose certificate was revoked, until it has a new certificate. Pure."""

from dataclasses import replace

from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment import cases
from controller.domain.device import REVOKED, ContainmentCase, Device
from controller.domain.effects import IsolateClient
from controller.domain.events import CertificateRenewed, CertificateRevoked, ContainmentOrdered, ReleaseOrdered
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import Transition


def is_held_by_revocation(device: Device) -> bool:
    return device.case is not None and device.case.is_held_by_revocation


def on_certificate_revoked(transition: Transition, event: CertificateRevoked) -> None:
    """Isolates without end: no report, operator or deadline releases the device, only a new certificate does."""
    case, now = transition.device.case, transition.now
    if case is None:
        case = ContainmentCase(transition.event_id, ContainmentLevel.ISOLATED, (), event.by, event.reason, now, now)
    case = replace(
        case,
        level=ContainmentLevel.ISOLATED,
        causes=tuple(dict.fromkeys((*case.causes, REVOKED))),
        by=event.by,
        reason=event.reason,
        evidence_at=now,
        hold_until=cases.FOREVER,
        held_below=case.restriction_hold,
        isolate_until=None,
        # The earlier proof was of another decision: the live session has to be disconnected after this one.
        proven_level=ContainmentLevel.NONE,
        proven_at=None,
    )
    transition.update_device(case=case)
    transition.add_audit(
        AuditKind.CERTIFICATE_REVOKED, event.by, alert=True, serials=list(event.serials), reason=event.reason
    )
    device_id = transition.device.device_id
    transition.effects.append(
        IsolateClient(transition.next_effect_id(), device_id, case.case_id, False, None, case.reason)
    )


def on_certificate_renewed(transition: Transition, event: CertificateRenewed) -> None:
    """Steps down to a restriction after a certificate was issued, so that a report can release the device."""
    case = transition.device.case
    if case is None or not is_held_by_revocation(transition.device):
        return
    causes = tuple(cause for cause in case.causes if cause != REVOKED)
    case = transition.update_case(case, causes=causes)
    transition.add_audit(AuditKind.CERTIFICATE_REVOCATION_RESOLVED, issued_at=event.issued_at)
    cases.end_isolation(transition, case, "cordon", "it has a new certificate", hold_until=case.held_below)


def keep_isolated(transition: Transition, event: ContainmentOrdered | ReleaseOrdered) -> None:
    """Answers an operator's request for a device with a revoked certificate, which changes nothing."""
    transition.decision = DecisionKind.REVOCATION_KEPT
    transition.add_audit(
        AuditKind.CERTIFICATE_REVOCATION_KEPT,
        event.by,
        reason=event.reason,
        why="its certificate is revoked: it comes back with a new one (cordon enrol token --device ... --replace)",
    )
