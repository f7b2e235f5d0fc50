"""What a device's own messages change: posture reports, heartbeats, online status; also silence and labels."""

from typing import Final

from controller.domain import commands
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment import admission, cases, challenge, report_signatures, response
from controller.domain.device import Device, RuleState
from controller.domain.effects import SendReceipt
from controller.domain.events import (
    DeviceEnrolled,
    DeviceLabelled,
    DeviceWentStale,
    HeartbeatReceived,
    PostureReported,
    StatusChanged,
)
from controller.domain.identity import clones
from controller.domain.policy.model import PolicySet
from controller.domain.transition import Transition
from schemas.events import ReceiptVerdict, RejectReason

CLOCK_SET_BACK: Final = 60.0  # seconds by which a last contact is in the future that tell of a clock set back


def is_repeated_report(device: Device, seq: int, boot_id: str, agent: str) -> bool:
    """Whether a report with unchanged sections is the next report of the same boot and agent."""
    return bool(boot_id) and seq > device.report_seq and boot_id == device.boot_id and agent == device.agent


def is_no_change_heartbeat(device: Device, digest: str, policies: PolicySet) -> bool:
    """Whether a heartbeat changes nothing but the time of contact, which most heartbeats do."""
    return (
        digest == device.digest
        and bool(digest)
        and not device.rules
        and not device.commands
        and device.case is None
        and not device.stale
        and device.judged_by == policies.version
    )


def on_posture_reported(transition: Transition, event: PostureReported) -> None:
    """Accepts or rejects a full report, updates the device by its findings and applies the response."""
    device = transition.device
    is_same_boot = bool(event.boot_id) and event.boot_id == device.boot_id
    if is_same_boot and event.seq < device.report_seq:
        detail = f"report {device.report_seq} was accepted already"
        reason = RejectReason.STALE_SEQUENCE
        transition.receipts.append(
            SendReceipt(device.device_id, event.seq, ReceiptVerdict.REJECTED, None, reason, detail)
        )
        return
    transition.receipts.append(SendReceipt(device.device_id, event.seq, ReceiptVerdict.ACCEPTED, event.digest))
    if is_same_boot and event.seq == device.report_seq and event.digest == device.digest:
        _record_contact(transition, event.received_at)
        challenge.issue_challenge(transition, event.seq, None, ask=False)
        return
    if device.report_seq < 0:
        transition.add_audit(AuditKind.REPORT_FIRST_ACCEPTED, device.device_id, agent=event.agent, digest=event.digest)
    clones.detect_clone(transition, event)
    rules = _accept_report(transition, event)
    report_signatures.record_signature(transition, device, event)
    is_fresh = _is_release_evidence(transition, event.answers)
    if not is_fresh and not transition.device.answers and device.rules != rules:
        why = "its agent answers no nonce and reports.must_answer is on: update the agent, or release the device"
        transition.add_audit(AuditKind.CONTAINMENT_RELEASE_BLOCKED, alert=True, why=why)
    may_release = is_fresh and event.may_release
    cases.apply_response(transition, evidence_at=event.received_at, may_release=may_release, evidence=event.evidence)
    challenge.issue_challenge(transition, event.seq, event.answers, ask=not is_fresh)


def _accept_report(transition: Transition, event: PostureReported) -> dict[str, RuleState]:
    """Updates the device by an accepted report and returns its unsatisfied rules."""
    device = transition.device
    if event.findings is None:
        rules, satisfied = response.repeat_findings(device.rules), device.satisfied
    else:
        rules = response.merge_findings(device.rules, event.findings, transition.now)
        satisfied = response.count_satisfied(event.findings)
    _record_changes(transition, rules, event.seq, event.digest)
    if device.stale:
        transition.add_audit(AuditKind.DEVICE_CONTACT_RESUMED, device.device_id)
    transition.update_device(
        boot_id=event.boot_id,
        agent=event.agent,
        report_seq=event.seq,
        digest=event.digest,
        reported_at=event.received_at,
        accepted=device.accepted + 1,
        judged_by=event.judged_by,
        satisfied=satisfied,
        rules=rules,
        predicates=device.predicates if event.predicates is None else event.predicates,
        last_seen=event.received_at,
        stale=False,
    )
    return rules


def on_heartbeat(transition: Transition, event: HeartbeatReceived) -> None:
    """Applies the findings of the last report again, or requests a full report if the digest is unknown."""
    device = transition.device
    _record_contact(transition, event.received_at)
    report_signatures.record_gaps(transition, event.seq, event.missing)
    commands.resend_unanswered(transition)
    if not device.digest or event.digest != device.digest:
        transition.receipts.append(SendReceipt(device.device_id, event.seq, ReceiptVerdict.RESEND_FULL))
        challenge.issue_challenge(transition, event.seq, None, ask=False)
        return
    if event.findings is not None:
        rules = response.merge_findings(device.rules, event.findings, transition.now)
        _record_changes(transition, rules, device.report_seq, device.digest)
        transition.update_device(
            rules=rules,
            judged_by=event.judged_by,
            predicates=event.predicates or (),
            satisfied=response.count_satisfied(event.findings),
        )
    elif device.rules or device.case is not None:
        transition.update_device(rules=response.repeat_findings(device.rules))
    else:
        return
    # The digest shows that the last report is still true: after an operator's hold that is evidence enough from an
    # agent that cannot answer a nonce.
    is_fresh = _is_release_evidence(transition, None)
    may_release = is_fresh and event.may_release
    cases.apply_response(transition, evidence_at=event.received_at, may_release=may_release, evidence=event.evidence)
    challenge.issue_challenge(transition, event.seq, None, ask=not is_fresh)


def on_status_changed(transition: Transition, event: StatusChanged) -> None:
    """Records that the device connected or disconnected; on connection its open commands are sent again."""
    device = transition.device
    transition.update_device(online=event.online)
    if device.online is not event.online:
        kind = AuditKind.DEVICE_ONLINE if event.online else AuditKind.DEVICE_OFFLINE
        transition.add_audit(kind, device.device_id, boot_id=event.boot_id)
    if event.online:
        commands.resend_open(transition)


def on_device_stale(transition: Transition, event: DeviceWentStale) -> None:
    transition.update_device(stale=True)
    transition.add_audit(AuditKind.DEVICE_STALE, after_seconds=event.after)
    admission.suspend_pending(transition)


def on_device_enrolled(transition: Transition, event: DeviceEnrolled) -> None:
    device = transition.device
    transition.update_device(enrolled_with=event.token_id)
    if event.device_class and event.device_class != device.device_class:
        on_device_labelled(transition, DeviceLabelled(event.event_id, event.device_class, device.tags, event.by))


def on_device_labelled(transition: Transition, event: DeviceLabelled) -> None:
    before = {"device_class": transition.device.device_class, "tags": list(transition.device.tags)}
    transition.update_device(device_class=event.device_class, tags=event.tags)
    transition.add_audit(
        AuditKind.DEVICE_LABELLED, event.by, device_class=event.device_class, tags=list(event.tags), before=before
    )


def _record_changes(transition: Transition, rules: dict[str, RuleState], seq: int, digest: str) -> None:
    before = transition.device.rules
    if not before and not rules:
        return
    worse = {
        key: state.result.value
        for key, state in rules.items()
        if key not in before or before[key].result is not state.result
    }
    better = [key for key in before if key not in rules]
    if worse or better:
        device_id = transition.device.device_id
        transition.add_audit(
            AuditKind.REPORT_POSTURE_CHANGED, device_id, seq=seq, digest=digest, worse=worse, better=better
        )


def _is_release_evidence(transition: Transition, answers: str | None) -> bool:
    """Whether the message counts towards a release; notes that the agent answers nonces."""
    if answers is not None and not transition.device.answers:
        transition.update_device(answers=True)
    device, guards, now = transition.device, transition.guards, transition.now
    without = response.rules_without_response(device, transition.policies, guards, now)
    return challenge.is_release_evidence(device, now, answers, required=guards.must_answer, without=without)


def _record_contact(transition: Transition, at: float) -> None:
    device = transition.device
    if device.stale:
        transition.add_audit(AuditKind.DEVICE_CONTACT_RESUMED, device.device_id)
    transition.update_device(last_seen=last_contact(device, at), stale=False)


def last_contact(device: Device, at: float) -> float:
    """Returns when the last contact was, after a message that arrived at `at`: the later one, unless the clock was set
    back in between.
    """
    return at if device.last_seen > at + CLOCK_SET_BACK else max(at, device.last_seen)
