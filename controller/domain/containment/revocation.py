"""Isolation of a device whose certificate was revoked, until it has a new certificate. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment import cases
from controller.domain.device import REVOKED, ContainmentCase, Device
from controller.domain.effects import IsolateClient
from controller.domain.events import CertificateRenewed, CertificateRevoked, ContainmentOrdered, ReleaseOrdered
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import Transition


def is_held_by_revocation(device: Device) -> bool:
    return device.case is not None and device.case.is_held_by_revocation


def why_not_isolated(
    devices: Sequence[Device], guards: FleetGuards, waiting: AbstractSet[str], now: float
) -> Mapping[str, str]:
    """Returns, by id, why devices with revoked certificates wait for an operator, who isolates them by hand.

    No operator named these devices: a followed list did, or whoever wrote into the registry. So protected devices wait,
    and in each pool of the blast radius all wait if they are more than its rest, or if one of the pool waited
    before (`waiting`): a list that is wrong as a whole isolates nobody, and none slowly. A device that is isolated
    already is lost nothing by one more cause.
    """
    held: dict[str, str] = {}
    pools: dict[str, list[str]] = defaultdict(list)
    for device in devices:
        protection = guards.protection.protection_reason(device)
        if device.level is ContainmentLevel.ISOLATED:
            continue
        if protection:
            held[device.device_id] = f"protected: {protection}"
        else:
            pools[guards.pool_of(device, now)].append(device.device_id)
    for pool, names in pools.items():
        radius = guards.radius_of(pool)
        if radius.bounds.is_unlimited:
            continue
        limit = radius.bounds.limit(guards.fleet)
        used = radius.used(now) + sum(not radius.counts(name, now) for name in names)
        if used > limit or radius.waiting or not waiting.isdisjoint(names):
            held.update(dict.fromkeys(names, f"blast radius: at most {limit} without an operator"))
    return held


def on_certificate_revoked(transition: Transition, event: CertificateRevoked) -> None:
    """Isolates without end: no report, operator or deadline releases the device, only a new certificate does."""
    case, now = transition.device.case, transition.now
    if event.counts and transition.device.level is not ContainmentLevel.ISOLATED:
        pool = transition.guards.pool_of(transition.device, now)
        counts_already = transition.guards.radius_of(pool).counts(transition.device.device_id, now)
        transition.charge = not counts_already or None
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
