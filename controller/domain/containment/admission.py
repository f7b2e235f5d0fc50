"""Admission control for containments that policies require: blast radius, protected devices, operators' dismissals."""

from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment.response import RequiredResponse
from controller.domain.device import Device, HoldReason, PendingContainment
from controller.domain.events import ContainmentDismissed
from controller.domain.guards.guards import ESTABLISHED, TOKEN_POOL
from controller.domain.transition import Transition


def admit(transition: Transition, required: RequiredResponse, evidence_at: float) -> bool:
    """Whether the fleet's guards allow the containment; if not, it becomes pending, with one audit entry."""
    device, guards = transition.device, transition.guards
    if _is_dismissed(device, required):
        return False
    protection = guards.protection.protection_reason(device)
    if protection:
        _hold_back(transition, required, HoldReason.PROTECTED, evidence_at, protection)
        return False
    radius = guards.radius_of(guards.pool_of(device, transition.now))
    if not radius.allows(device.device_id, guards.fleet, transition.now):
        _hold_back(transition, required, HoldReason.BLAST_RADIUS, evidence_at, "")
        return False
    transition.charge = not radius.counts(device.device_id, transition.now) or None
    transition.update_device(pending=None)
    return True


def _is_dismissed(device: Device, required: RequiredResponse) -> bool:
    pending = device.pending
    if pending is None or pending.why is not HoldReason.DISMISSED:
        return False
    return required.level.rank <= pending.level.rank and set(required.causes) <= set(pending.causes)


def _hold_back(
    transition: Transition, required: RequiredResponse, reason: HoldReason, evidence_at: float, protection: str
) -> None:
    pending = transition.device.pending
    is_known = pending is not None and pending.why is reason
    is_covered = pending is not None and set(required.causes) <= set(pending.causes)
    if is_known and is_covered and pending is not None and pending.level is required.level:
        return
    pool = transition.guards.pool_of(transition.device, transition.now)
    if reason is HoldReason.BLAST_RADIUS and not is_known and not transition.guards.radius_of(pool).waiting:
        _alert_blast_radius(transition, pool)
    since = pending.since if is_known and pending is not None else transition.now
    transition.update_device(pending=PendingContainment(reason, required.level, required.causes, since, evidence_at))
    transition.add_audit(
        AuditKind.CONTAINMENT_DEFERRED,
        # A protected device alerts by itself; the blast radius alerts once for the fleet.
        alert=reason is HoldReason.PROTECTED and not is_known,
        why=reason.value,
        level=required.level.value,
        causes=list(required.causes),
        **({"protected": protection} if protection else {}),
    )


def _alert_blast_radius(transition: Transition, pool: str) -> None:
    radius, fleet = transition.guards.radius_of(pool), transition.guards.fleet
    which = f" of the new devices {_source(pool)}" if pool != ESTABLISHED else ""
    more = (
        {"pool": pool, "enrolment_token": pool.removeprefix(TOKEN_POOL)}
        if pool.startswith(TOKEN_POOL)
        else {"pool": pool}
    )
    transition.add_audit(
        AuditKind.GUARD_BLAST_RADIUS_REACHED,
        alert=True,
        contained=radius.used(transition.now),
        limit=radius.bounds.limit(fleet),
        fleet=fleet,
        window_seconds=radius.bounds.window,
        what=f"every further containment by policy{which} waits for an operator: cordon guard status",
        **more,
    )


def _source(pool: str) -> str:
    if not pool.startswith(TOKEN_POOL):
        return "without an enrolment token"
    token = pool.removeprefix(TOKEN_POOL)
    return f"of the enrolment token {token} (withdraw it: cordon enrol withdraw {token})"


def clear_pending(transition: Transition, required: RequiredResponse) -> None:
    """Drops a pending containment that is no longer required. A dismissal stays until its causes pass."""
    pending = transition.device.pending
    if pending is None:
        return
    if pending.why is HoldReason.DISMISSED and set(pending.causes) & set(transition.device.rules):
        return
    if pending.why is not HoldReason.DISMISSED and required.level.rank > transition.device.level.rank:
        return
    transition.update_device(pending=None)
    transition.add_audit(AuditKind.CONTAINMENT_PENDING_CLEARED, why=pending.why.value, causes=list(pending.causes))


def suspend_pending(transition: Transition) -> None:
    """Drops a pending containment of a device that became stale; its next report may require it again."""
    pending = transition.device.pending
    if pending is not None and pending.why is not HoldReason.DISMISSED:
        transition.update_device(pending=None)
        transition.add_audit(
            AuditKind.CONTAINMENT_PENDING_CLEARED,
            why=pending.why.value,
            causes=list(pending.causes),
            reason="the device became stale",
        )


def on_containment_dismissed(transition: Transition, event: ContainmentDismissed) -> None:
    """Dismisses a pending containment until its causes pass, or a stronger level or another cause is required."""
    pending = transition.device.pending
    if pending is None or pending.why is HoldReason.DISMISSED:
        transition.decision = DecisionKind.NO_PENDING
        transition.add_audit(AuditKind.CONTAINMENT_NO_PENDING, event.by, reason=event.reason)
        return
    dismissed = PendingContainment(
        HoldReason.DISMISSED, pending.level, pending.causes, transition.now, pending.evidence_at, event.by
    )
    transition.update_device(pending=dismissed)
    transition.decision = DecisionKind.DISMISSED
    transition.add_audit(
        AuditKind.CONTAINMENT_DISMISSED,
        event.by,
        reason=event.reason,
        level=pending.level.value,
        causes=list(pending.causes),
    )
