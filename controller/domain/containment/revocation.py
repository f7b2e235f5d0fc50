"""A device whose certificate was revoked: out until it has a new one, whatever else is decided about it. Pure."""

from dataclasses import replace
from typing import Final

from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment import cases
from controller.domain.device import ContainmentCase, Device
from controller.domain.effects import IsolateClient
from controller.domain.events import CertificateRenewed, CertificateRevoked, ContainmentOrdered, ReleaseOrdered
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import Transition

REVOKED: Final = "identity/revoked"  # the cause, beside keys of rules


def holds(device: Device) -> bool:
    """Whether the device is out because a certificate of it was revoked."""
    return device.case is not None and REVOKED in device.case.causes


def revoked(draft: Transition, event: CertificateRevoked) -> None:
    """Isolate without end: no report, no operator's release and no time lets it in, a new certificate does."""
    case = draft.device.case
    if case is None:
        case = ContainmentCase(
            draft.event_id, ContainmentLevel.ISOLATED, (), event.by, event.reason, draft.now, draft.now
        )
    case = replace(
        case,
        level=ContainmentLevel.ISOLATED,
        causes=tuple(dict.fromkeys((*case.causes, REVOKED))),
        by=event.by,
        reason=event.reason,
        evidence_at=draft.now,
        hold_until=cases.FOREVER,
        isolate_until=None,
        # What was proven before was another decision: the live session has to be seen gone after this one.
        proven_level=ContainmentLevel.NONE,
        proven_at=None,
    )
    draft.update(case=case)
    draft.record(AuditKind.CERTIFICATE_REVOKED, event.by, alert=True, serials=list(event.serials), reason=event.reason)
    draft.effects.append(
        IsolateClient(draft.next_effect_id(), draft.device.device_id, case.case_id, False, None, case.reason)
    )


def renewed(draft: Transition, event: CertificateRenewed) -> None:
    """It has a certificate that was issued after the revocation: let it prove itself, restricted."""
    case = draft.device.case
    if case is None or not holds(draft.device):
        return
    left = tuple(cause for cause in case.causes if cause != REVOKED)
    case = draft.update_case(case, causes=left)
    draft.record(AuditKind.CERTIFICATE_REVOCATION_RESOLVED, issued_at=event.issued_at)
    cases.step_down(draft, case, "cordon", "it has a new certificate")


def kept(draft: Transition, event: ContainmentOrdered | ReleaseOrdered) -> None:
    """An operator's word about a device that is out by revocation changes nothing, and says why."""
    draft.decision = DecisionKind.REVOCATION_KEPT
    draft.record(
        AuditKind.CERTIFICATE_REVOCATION_KEPT,
        event.by,
        reason=event.reason,
        why="its certificate is revoked: it comes back with a new one (cordon enrol token --device ... --replace)",
    )
