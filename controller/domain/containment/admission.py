"""Holds a containment back that policies ask for: too much of the fleet at once, a protected device, a no by hand."""

from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment.response import RequiredResponse
from controller.domain.device import Device, HoldReason, PendingContainment
from controller.domain.transition import Transition


def admits(draft: Transition, want: RequiredResponse, evidence_at: float) -> bool:
    """Whether the fleet's guards let this containment through; else it waits, and the record says so once."""
    device, guards = draft.device, draft.guards
    if _is_dismissed(device, want):
        return False
    protected = guards.protection.protection_reason(device)
    if protected:
        _hold(draft, want, HoldReason.PROTECTED, evidence_at, protected)
        return False
    if not guards.radius.allows(device.device_id, guards.fleet, draft.now):
        _hold(draft, want, HoldReason.BLAST_RADIUS, evidence_at, "")
        return False
    draft.charge = not guards.radius.counts(device.device_id, draft.now) or None
    draft.update(pending=None)
    return True


def _is_dismissed(device: Device, want: RequiredResponse) -> bool:
    pending = device.pending
    if pending is None or pending.why is not HoldReason.DISMISSED:
        return False
    return want.level.rank <= pending.level.rank and set(want.causes) <= set(pending.causes)


def _hold(draft: Transition, want: RequiredResponse, why: HoldReason, evidence_at: float, protected: str) -> None:
    pending = draft.device.pending
    known = pending is not None and pending.why is why
    if known and pending is not None and pending.level is want.level and set(want.causes) <= set(pending.causes):
        return
    if why is HoldReason.BLAST_RADIUS and not known and not draft.guards.radius.waiting:
        _alert(draft)
    since = pending.since if known and pending is not None else draft.now
    draft.update(pending=PendingContainment(why, want.level, want.causes, since, evidence_at))
    draft.record(
        AuditKind.CONTAINMENT_DEFERRED,
        # A protected device is one operator's decision; of a fleet there is one alert for all.
        alert=why is HoldReason.PROTECTED and not known,
        why=why.value,
        level=want.level.value,
        causes=list(want.causes),
        **({"protected": protected} if protected else {}),
    )


def _alert(draft: Transition) -> None:
    radius, fleet = draft.guards.radius, draft.guards.fleet
    draft.record(
        AuditKind.GUARD_BLAST_RADIUS_REACHED,
        alert=True,
        contained=radius.used(draft.now),
        limit=radius.bounds.limit(fleet),
        fleet=fleet,
        window_seconds=radius.bounds.window,
        what="every further containment by policy waits for an operator: cordon guard status",
    )


def forget(draft: Transition, want: RequiredResponse) -> None:
    """What waited is not asked for any more: the device passes, or it is contained as far as that already."""
    pending = draft.device.pending
    if pending is None:
        return
    if pending.why is HoldReason.DISMISSED and set(pending.causes) & set(draft.device.rules):
        return  # the no stands until the causes pass
    if pending.why is not HoldReason.DISMISSED and want.level.rank > draft.device.level.rank:
        return
    draft.update(pending=None)
    draft.record(AuditKind.CONTAINMENT_PENDING_CLEARED, why=pending.why.value, causes=list(pending.causes))


def fell_silent(draft: Transition) -> None:
    """Nothing is contained on stale facts: what waited is asked for again when the device is heard again."""
    pending = draft.device.pending
    if pending is not None and pending.why is not HoldReason.DISMISSED:
        draft.update(pending=None)
        draft.record(
            AuditKind.CONTAINMENT_PENDING_CLEARED,
            why=pending.why.value,
            causes=list(pending.causes),
            reason="the device became stale",
        )


def dismiss(draft: Transition, by: str, reason: str) -> None:
    """An operator says no to what waits; it stands until the causes pass, or more is asked for."""
    pending = draft.device.pending
    if pending is None or pending.why is HoldReason.DISMISSED:
        draft.decision = DecisionKind.NO_PENDING
        draft.record(AuditKind.CONTAINMENT_NO_PENDING, by, reason=reason)
        return
    no = PendingContainment(HoldReason.DISMISSED, pending.level, pending.causes, draft.now, pending.evidence_at, by)
    draft.update(pending=no)
    draft.decision = DecisionKind.DISMISSED
    draft.record(
        AuditKind.CONTAINMENT_DISMISSED, by, reason=reason, level=pending.level.value, causes=list(pending.causes)
    )
