"""The one entry of every decision: `(device, event, now) -> (device', effects, record)`. Pure.

What the rest of the fleet has to say comes in as `FleetGuards`, what it has to know goes out with the `StepOutcome`.
"""

from typing import Any

from controller.domain import commands
from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment import (
    admission,
    cases,
    challenge,
    device_events,
    report_signatures,
    response,
    revocation,
)
from controller.domain.device import Device, RuleState
from controller.domain.effects import SendReceipt
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.identity import clones
from controller.domain.policy.model import ContainmentLevel, PolicySet
from controller.domain.transition import StepOutcome, Transition
from schemas.events import ReceiptVerdict, RejectReason


def step(
    device: Device, event: ev.DomainEvent, now: float, policies: PolicySet, guards: FleetGuards = NO_GUARDS
) -> StepOutcome:
    """What `event` makes of `device` at `now` (Unix seconds), judged and answered by `policies` within `guards`."""
    draft = Transition(device, event.event_id, now, policies, guards)
    match event:
        case ev.PostureReported():
            _posture(draft, event)
        case ev.HeartbeatReceived():
            _heartbeat(draft, event)
        case ev.StatusChanged():
            _status(draft, event)
        case ev.DeviceEventReported():
            device_events.happened(draft, event)
        case ev.CommandReported():
            commands.reported(draft, event.command_id, event.state, event.reason, event.detail)
        case ev.DeviceWentStale():
            draft.update(stale=True)
            draft.record(AuditKind.DEVICE_STALE, after_seconds=event.after)
            admission.fell_silent(draft)
        case ev.DeadlineReached():
            _time(draft)
        case _:
            _by_others(draft, event)
    return draft.finish()


def _by_others(draft: Transition, event: ev.DomainEvent) -> None:
    match event:
        case ev.ContainmentOrdered() | ev.ReleaseOrdered() if revocation.holds(draft.device):
            revocation.kept(draft, event)
        case ev.ContainmentOrdered():
            cases.operator_contains(draft, event.level, event.by, event.reason, event.hold)
            cases.apply(draft, event.options)
        case ev.ReleaseOrdered():
            device_events.dismiss(draft, event.by)
            draft.update(answers=False)  # the way out for an agent that was set back to an older version
            cases.operator_releases(draft, event.by, event.reason)
        case ev.ContainmentApproved():
            cases.approve(draft, event.by, event.reason)
        case ev.ContainmentDismissed():
            admission.dismiss(draft, event.by, event.reason)
        case ev.CommandRequested():
            commands.ordered(draft, event)
        case ev.CommandWithdrawn():
            commands.withdraw(draft, event.command_id, event.by, event.reason)
        case _:
            _of_the_device(draft, event)


def _of_the_device(draft: Transition, event: ev.DomainEvent) -> None:
    match event:
        case ev.DeviceLabelled():
            before = {"device_class": draft.device.device_class, "tags": list(draft.device.tags)}
            draft.update(device_class=event.device_class, tags=event.tags)
            after: dict[str, Any] = {"device_class": event.device_class, "tags": list(event.tags)}
            draft.record(AuditKind.DEVICE_LABELLED, event.by, **after, before=before)
        case ev.CommandCountersigned():
            commands.countersigned(draft, event.command_id, event.keyid, event.signature, event.by)
        case ev.SignatureRequirementLifted():
            draft.update(signs=False)
            draft.record(AuditKind.REPORT_SIGNING_WAIVED, event.by, before={"signs": True}, reason=event.reason)
        case ev.CommandDelivered():
            draft.record(AuditKind.COMMAND_SENT, command_id=event.command_id)
        case ev.CertificateRevoked() | ev.CertificateRenewed() | ev.CloneSuspected():
            _about_identity(draft, event)
        case ev.ReporterAuthenticated():
            cases.vouched(draft, event.case_id, event.evidence, event.heard_at)
        case _:
            _at_the_broker(draft, event)


def _about_identity(
    draft: Transition, event: ev.CertificateRevoked | ev.CertificateRenewed | ev.CloneSuspected
) -> None:
    match event:
        case ev.CertificateRevoked():
            revocation.revoked(draft, event)
        case ev.CertificateRenewed():
            revocation.renewed(draft, event)
        case ev.CloneSuspected():
            seen: dict[str, Any] = {"how": event.how, "peers": list(event.peers), "times": event.times}
            draft.record(AuditKind.DEVICE_CLONE_SUSPECTED, alert=True, **seen, grade=event.grade)


def _posture(draft: Transition, event: ev.PostureReported) -> None:
    device = draft.device
    same_boot = bool(event.boot_id) and event.boot_id == device.boot_id
    if same_boot and event.seq < device.report_seq:
        why = f"report {device.report_seq} was accepted already"
        stale = SendReceipt(
            device.device_id, event.seq, ReceiptVerdict.REJECTED, None, RejectReason.STALE_SEQUENCE, why
        )
        draft.receipts.append(stale)
        return
    receipt = SendReceipt(device.device_id, event.seq, ReceiptVerdict.ACCEPTED, event.digest)
    draft.receipts.append(receipt)
    if same_boot and event.seq == device.report_seq and event.digest == device.digest:
        _seen(draft, event.received_at)
        challenge.pose(draft, event.seq, None, ask=False)
        return
    if event.findings is None:
        rules, satisfied = response.repeat(device.rules), device.satisfied
    else:
        rules = response.fold(device.rules, event.findings, draft.now)
        satisfied = response.satisfied(event.findings)
    if device.report_seq < 0:
        draft.record(AuditKind.REPORT_FIRST_ACCEPTED, device.device_id, agent=event.agent, digest=event.digest)
    _look_for_a_clone(draft, event)
    _record_changes(draft, rules, event.seq, event.digest)
    if device.stale:
        draft.record(AuditKind.DEVICE_CONTACT_RESUMED, device.device_id)
    draft.update(
        boot_id=event.boot_id,
        agent=event.agent,
        report_seq=event.seq,
        digest=event.digest,
        reported_at=event.received_at,
        accepted=device.accepted + 1,
        judged_by=event.judged_by,
        satisfied=satisfied,
        rules=rules,
        marks=device.marks if event.marks is None else event.marks,
        last_seen=event.received_at,
        stale=False,
    )
    report_signatures.follow(draft, device, event)
    is_fresh = _is_fresh(draft, event.answers)
    if not is_fresh and not draft.device.answers and device.rules != rules:
        why = "its agent answers no nonce and reports.must_answer is on: update the agent, or release it by hand"
        draft.record(AuditKind.CONTAINMENT_RELEASE_BLOCKED, alert=True, why=why)
    cases.respond(draft, evidence_at=event.received_at, may_release=is_fresh, evidence=event.evidence)
    challenge.pose(draft, event.seq, event.answers, ask=not is_fresh)


def _look_for_a_clone(draft: Transition, event: ev.PostureReported) -> None:
    device = draft.device
    if event.seq < device.report_seq:
        is_news = draft.now - device.cloned_at >= clones.QUIET
        draft.update(cloned_at=draft.now if is_news else device.cloned_at)
        draft.record(
            AuditKind.REPORT_SEQUENCE_REGRESSED, device.device_id, alert=is_news, was=device.report_seq, now=event.seq
        )
    how = clones.detect_ended_boot(
        event.boot_id,
        now_in=device.boot_id,
        before=device.boot_before,
        told_at=device.cloned_at,
        now=draft.now,
    )
    if how:
        draft.update(cloned_at=draft.now)
        draft.record(AuditKind.DEVICE_CLONE_SUSPECTED, alert=True, how=how, evidence=event.evidence.value)
    if event.boot_id and event.boot_id != device.boot_id:
        draft.update(boot_before=device.boot_id)


def _record_changes(draft: Transition, rules: dict[str, RuleState], seq: int, digest: str) -> None:
    before = draft.device.rules
    if not before and not rules:
        return
    worse = {
        key: state.result.value
        for key, state in rules.items()
        if key not in before or before[key].result is not state.result
    }
    better = [key for key in before if key not in rules]
    if worse or better:
        draft.record(
            AuditKind.REPORT_POSTURE_CHANGED, draft.device.device_id, seq=seq, digest=digest, worse=worse, better=better
        )


def repeats(device: Device, seq: int, boot_id: str, agent: str) -> bool:
    """Whether a report of the same sections is the next one of the same agent's same run."""
    return bool(boot_id) and seq > device.report_seq and boot_id == device.boot_id and agent == device.agent


def is_quiet(device: Device, digest: str, policies: PolicySet) -> bool:
    """Whether a heartbeat with `digest` changes nothing but the time of contact: the usual case, by far."""
    return (
        digest == device.digest
        and bool(digest)
        and not device.rules
        and not device.commands
        and device.case is None
        and not device.stale
        and device.judged_by == policies.version
    )


def _heartbeat(draft: Transition, event: ev.HeartbeatReceived) -> None:
    device = draft.device
    _seen(draft, event.received_at)
    report_signatures.note_missing(draft, event.seq, event.missing)
    commands.send_lost(draft)
    if not device.digest or event.digest != device.digest:
        draft.receipts.append(SendReceipt(device.device_id, event.seq, ReceiptVerdict.RESEND_FULL))
        challenge.pose(draft, event.seq, None, ask=False)
        return
    if event.findings is not None:
        rules = response.fold(device.rules, event.findings, draft.now)
        _record_changes(draft, rules, device.report_seq, device.digest)
        draft.update(
            rules=rules,
            judged_by=event.judged_by,
            marks=event.marks or (),
            satisfied=response.satisfied(event.findings),
        )
    elif device.rules or device.case is not None:
        draft.update(rules=response.repeat(device.rules))
    else:
        return
    # The digest says that the last report holds still: once an operator's hold is over, that is proof enough of an
    # agent that cannot be asked for a fresh one.
    is_fresh = _is_fresh(draft, None)
    cases.respond(draft, evidence_at=event.received_at, may_release=is_fresh, evidence=event.evidence)
    challenge.pose(draft, event.seq, None, ask=not is_fresh)


def _is_fresh(draft: Transition, answers: str | None) -> bool:
    """Whether what the device says may count towards a release."""
    if answers is not None and not draft.device.answers:
        draft.update(answers=True)
    without = response.inert(draft.device, draft.policies, draft.guards, draft.now)
    required = draft.guards.must_answer
    return challenge.may_release(draft.device, draft.now, answers, required=required, without=without)


def _seen(draft: Transition, at: float) -> None:
    if draft.device.stale:
        draft.record(AuditKind.DEVICE_CONTACT_RESUMED, draft.device.device_id)
    draft.update(last_seen=max(at, draft.device.last_seen), stale=False)


def _status(draft: Transition, event: ev.StatusChanged) -> None:
    was = draft.device.online
    draft.update(online=event.online)
    if was is not event.online:
        draft.record(
            AuditKind.DEVICE_ONLINE if event.online else AuditKind.DEVICE_OFFLINE,
            draft.device.device_id,
            boot_id=event.boot_id,
        )
    if event.online:
        commands.send_again(draft)


def _time(draft: Transition) -> None:
    commands.expire(draft)
    device_events.expire(draft)
    case = draft.device.case
    if (
        case is not None
        and case.level is ContainmentLevel.ISOLATED
        and case.isolate_until is not None
        and draft.now >= case.isolate_until
    ):
        # What an operator holds stays held when time alone ends the isolation above it.
        cases.step_down(draft, case, "cordon", "its time is over", hold_until=case.hold_until)
    elif not draft.device.stale:
        # A grace period or a waiver is over; what was reported before the device fell silent, before a long absence of
        # the controller, or for other policies, contains nobody.
        device, guards = draft.device, draft.guards
        fresh = draft.now - device.last_seen <= guards.fresh_for and device.judged_by in ("", draft.policies.version)
        # After a refusal it takes news: the same words would be refused again.
        fresh = fresh and device.reported_at >= device.refused_until
        cases.respond(draft, evidence_at=draft.now, said_at=device.reported_at, may_release=False, may_contain=fresh)


def _at_the_broker(draft: Transition, event: ev.DomainEvent) -> None:
    case = draft.device.case
    mine = case is not None and case.case_id == getattr(event, "case_id", "")
    match event:
        case ev.ContainmentProven():
            seconds = None
            if case is not None and mine and event.level is case.level:
                if event.cut_at and case.proven_level is not event.level:
                    seconds = max(0.0, event.cut_at - case.evidence_at)
                evidence = max(case.evidence, event.evidence, key=lambda one: one.rank)
                draft.update_case(case, proven_level=event.level, proven_at=draft.now, trouble="", evidence=evidence)
            draft.record(
                AuditKind.CONTAINMENT_PROVEN,
                case_id=event.case_id,
                level=event.level.value,
                seconds=seconds,
                cut_at=event.cut_at or None,
                evidence_at=case.evidence_at if case is not None and mine else None,
                evidence=event.evidence.value,
                steps=list(event.steps),
            )
        case ev.ContainmentFailed():
            if case is not None and mine:
                draft.update_case(case, trouble=event.trouble)
            draft.record(
                AuditKind.CONTAINMENT_FAILED,
                case_id=event.case_id,
                alert=True,
                what=event.what,
                trouble=event.trouble,
                steps=list(event.steps),
            )
        case ev.ContainmentRefused():
            draft.record(
                AuditKind.CONTAINMENT_REFUSED,
                case_id=event.case_id,
                alert=True,
                reason=event.reason,
                evidence=event.evidence.value,
            )
            if case is not None and mine:
                cases.refused(draft, case, cases.LATER_PAUSE if event.by_a_later else cases.REFUSAL_PAUSE)
        case ev.ReleaseProven():
            draft.record(AuditKind.CONTAINMENT_RELEASE_PROVEN, case_id=event.case_id, steps=list(event.steps))
        case ev.DriftDetected():
            draft.record(AuditKind.BROKER_DRIFT_FOUND, case_id=event.case_id, alert=True, what=event.what)
        case _:
            raise TypeError(f"no step for {type(event).__name__}")
