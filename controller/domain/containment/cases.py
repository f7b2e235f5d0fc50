"""Opens, escalates, steps down and closes containment cases by what a device's rules require."""

from dataclasses import dataclass, replace
from typing import Final

from controller.domain import commands
from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.containment import admission
from controller.domain.containment.response import (
    RequiredResponse,
    counts_towards_release,
    is_passing_report,
    is_release_stable,
    required_response,
    rules_without_response,
)
from controller.domain.device import ContainmentCase, Device, OpenCommand
from controller.domain.effects import (
    NO_OPTIONS,
    ContainmentOptions,
    EndIsolation,
    IsolateClient,
    ReleaseClient,
    RestrictClient,
)
from controller.domain.events import ContainmentApproved
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel, Remedy
from controller.domain.transition import Transition

POLICY: Final = "policy"
PROBATION: Final = 120.0  # seconds in which a device that stepped down may be repaired before it is isolated again
FOREVER: Final = float("inf")
MAX_OFFENCES: Final = 16  # earlier cases that are remembered of a device


@dataclass(frozen=True, slots=True)
class ContainmentEvidence:
    """The messages that a containment is based on.

    `evidence_at`: when the message arrived that led to the decision, `earliest_evidence_at`: when the earliest one did
    that the decision needs, both Unix seconds. `evidence`: how the messages authenticate their sender.
    """

    evidence_at: float
    earliest_evidence_at: float
    evidence: Evidence

    def may_contain(self, now: float, refused_until: float) -> bool:
        """Whether the broker may be asked to contain. A refusal only delays evidence that is not authenticated."""
        return self.evidence is not Evidence.CLAIMED and (self.evidence.may_contain or now >= refused_until)

    def weakened_by_events(
        self, transition: Transition, required: RequiredResponse, without: frozenset[str]
    ) -> "ContainmentEvidence":
        """Returns weaker evidence if the required level depends on earlier device events.

        A report authenticates the sender of the report, not the sender of an event an hour ago; and of several events
        the first may come from another sender.
        """
        rules = transition.device.rules
        by_events = [key for key in required.causes if rules[key].until]
        if not by_events:
            return self
        other = required_response(rules, transition.policies, transition.now, without.union(by_events))
        if other.level.rank >= required.level.rank:
            return self
        earliest = min(self.earliest_evidence_at, *(rules[key].since for key in by_events))
        evidence = Evidence.UNASKED if self.evidence.may_contain else self.evidence
        return ContainmentEvidence(self.evidence_at, earliest, evidence)


def apply_response(
    transition: Transition,
    *,
    evidence_at: float,
    earliest_evidence_at: float | None = None,
    may_release: bool,
    evidence: Evidence = Evidence.UNASKED,
    may_contain: bool = True,
) -> None:
    """Brings case and commands to what the device's rules require.

    `evidence_at`: when the triggering message arrived, Unix seconds; `earliest_evidence_at`: when the report behind it
    arrived, if earlier. `may_release`: the message was a fresh report. `evidence`: how it authenticates its sender.
    `may_contain`: the device's facts are fresh enough for a containment.
    """
    device = transition.device
    without = rules_without_response(device, transition.policies, transition.guards, transition.now)
    required = _required_response(transition, without)
    case = _count_passing(transition, required, without) if may_release else device.case
    earliest = evidence_at if earliest_evidence_at is None else earliest_evidence_at
    basis = ContainmentEvidence(evidence_at, earliest, evidence).weakened_by_events(transition, required, without)
    may_contain = may_contain and basis.may_contain(transition.now, device.refused_until)
    if required.level.rank <= device.level.rank:
        admission.clear_pending(transition, required)
    if case is None:
        is_required = required.level is not ContainmentLevel.NONE
        if is_required and may_contain and admission.admit(transition, required, evidence_at):
            _open_case(transition, required, basis)
    elif may_release and _may_close(transition, case, required, without):
        close_case(transition, case, POLICY, "a fresh report passes")
    elif required.level.rank > case.level.rank and transition.now >= case.probation_until:
        if may_contain and admission.admit(transition, required, evidence_at):
            _escalate_case(transition, case, required, basis)
    elif case.by == POLICY and required.causes and not set(required.causes) <= set(case.causes):
        # A new cause at the same level has to pass too before the device is released.
        transition.update_case(case, causes=tuple(dict.fromkeys(case.causes + required.causes)))
    _issue_remedies(transition, required)


def _required_response(transition: Transition, without: frozenset[str]) -> RequiredResponse:
    device = transition.device
    return required_response(device.rules, transition.policies, transition.now, without, _prior_cases(device))


def _prior_cases(device: Device) -> tuple[float, ...]:
    """Returns when the earlier cases opened; the present case counts after an isolation that did not help."""
    case = device.case
    if case is None or case.probation_until:
        return device.offences
    return tuple(at for at in device.offences if at < case.opened_at)


def _count_passing(
    transition: Transition, required: RequiredResponse, without: frozenset[str]
) -> ContainmentCase | None:
    case = transition.device.case
    if case is None or case.level is not ContainmentLevel.RESTRICTED:
        return case
    if is_passing_report(case, transition.device.rules, required, without):
        since = case.passing_since if case.passing else transition.now
        return transition.update_case(case, passing=case.passing + 1, passing_since=since)
    return transition.update_case(case, passing=0, passing_since=0.0) if case.passing else case


def _may_close(
    transition: Transition, case: ContainmentCase, required: RequiredResponse, without: frozenset[str]
) -> bool:
    device = transition.device
    if not counts_towards_release(case, device.rules, required, transition.now, without):
        return False
    earlier = tuple(at for at in device.offences if at < case.opened_at)
    return is_release_stable(case, transition.policies, earlier, transition.now, without)


def _open_case(
    transition: Transition, required: RequiredResponse, basis: ContainmentEvidence, approved_by: str = ""
) -> None:
    """Opens a case by policy; `approved_by`: the operator who approved a pending containment."""
    until = transition.now + required.isolate_for if required.level is ContainmentLevel.ISOLATED else None
    case = ContainmentCase(
        case_id=transition.event_id,
        level=required.level,
        causes=required.causes,
        by=POLICY,
        reason="fails " + ", ".join(required.causes),
        opened_at=transition.now,
        evidence_at=basis.evidence_at,
        earliest_evidence_at=basis.earliest_evidence_at,
        isolate_until=until,
        evidence=basis.evidence,
        charged=bool(transition.charge),
        approved_by=approved_by,
    )
    transition.update_device(case=case, offences=(*transition.device.offences, transition.now)[-MAX_OFFENCES:])
    transition.add_audit(
        AuditKind.CONTAINMENT_DECIDED,
        approved_by or "cordon",
        level=required.level.value,
        causes=list(required.causes),
        reason=case.reason,
        until=until,
        evidence=basis.evidence.value,
    )
    emit_containment(transition, case, by_policy=True)


def _escalate_case(
    transition: Transition,
    case: ContainmentCase,
    required: RequiredResponse,
    basis: ContainmentEvidence,
    approved_by: str = "",
) -> None:
    """Isolates a restricted device by policy."""
    if case.probation_until:  # an earlier isolation did not help
        transition.update_device(offences=(*transition.device.offences, transition.now)[-MAX_OFFENCES:])
    # The case becomes the policy's: raising an operator's containment needs an authenticated sender.
    case = transition.update_case(
        case,
        level=required.level,
        by=POLICY,
        causes=tuple(dict.fromkeys(case.causes + required.causes)),
        evidence_at=basis.evidence_at,
        earliest_evidence_at=basis.earliest_evidence_at,
        evidence=basis.evidence,
        held_below=case.restriction_hold,
        isolate_until=transition.now + required.isolate_for,
        reason="fails " + ", ".join(required.causes),
        passing=0,
        approved_by=approved_by,
    )
    transition.add_audit(
        AuditKind.CONTAINMENT_ESCALATED,
        approved_by or "cordon",
        level=case.level.value,
        causes=list(required.causes),
        until=case.isolate_until,
        evidence=basis.evidence.value,
    )
    emit_containment(transition, case, by_policy=True)


def on_containment_approved(transition: Transition, event: ContainmentApproved) -> None:
    """Carries out a pending containment as far as the device's rules still require it."""
    device = transition.device
    pending, case = device.pending, device.case
    if pending is None:
        transition.decision = DecisionKind.NO_PENDING
        transition.add_audit(AuditKind.CONTAINMENT_NO_PENDING, event.by, reason=event.reason)
        return
    without = rules_without_response(device, transition.policies, transition.guards, transition.now)
    required = _required_response(transition, without)
    basis = ContainmentEvidence(transition.now, device.last_seen, Evidence.UNASKED)
    basis = basis.weakened_by_events(transition, required, without)
    why, level = pending.why.value, required.level.value
    transition.decision = DecisionKind.APPROVED
    transition.add_audit(AuditKind.CONTAINMENT_APPROVED, event.by, reason=event.reason, why=why, level=level)
    transition.update_device(pending=None)
    if device.stale or required.level.rank <= device.level.rank:
        transition.decision = DecisionKind.PENDING_CLEARED
        transition.add_audit(AuditKind.CONTAINMENT_PENDING_CLEARED, event.by, why=why, causes=list(pending.causes))
    elif case is None:
        _open_case(transition, required, basis, event.by)
    else:
        _escalate_case(transition, case, required, basis, event.by)


def emit_containment(
    transition: Transition, case: ContainmentCase, *, by_policy: bool, options: ContainmentOptions = NO_OPTIONS
) -> None:
    """Adds the effect that brings the broker to the level of the case."""
    effect_id, device_id = transition.next_effect_id(), transition.device.device_id
    if case.level is ContainmentLevel.ISOLATED:
        transition.effects.append(
            IsolateClient(
                effect_id,
                device_id,
                case.case_id,
                by_policy,
                case.isolate_until,
                case.reason,
                case.evidence,
                options.clear_retained,
            )
        )
    else:
        transition.effects.append(
            RestrictClient(effect_id, device_id, case.case_id, by_policy, case.evidence, options.kick)
        )


def close_case(transition: Transition, case: ContainmentCase, actor: str, reason: str) -> None:
    """Releases the device."""
    transition.add_audit(
        AuditKind.CONTAINMENT_RELEASE_DECIDED, actor, reason=reason, contained_seconds=transition.now - case.opened_at
    )
    device_id = transition.device.device_id
    transition.effects.append(ReleaseClient(transition.next_effect_id(), device_id, case.case_id))
    transition.update_device(case=None)


def end_isolation(
    transition: Transition, case: ContainmentCase, actor: str, reason: str, *, hold_until: float = 0.0
) -> None:
    """Steps an isolation down to a restriction; after `hold_until` a fresh report can release the device."""
    case = transition.update_case(
        case,
        level=ContainmentLevel.RESTRICTED,
        isolate_until=None,
        hold_until=hold_until,
        probation_until=transition.now + PROBATION,
        reason=f"{case.reason}; isolation ended: {reason}",
    )
    transition.add_audit(AuditKind.CONTAINMENT_STEPPED_DOWN, actor, reason=reason)
    if case.proven_level is ContainmentLevel.NONE:
        # The isolation may never have been carried out: ending it would then restrict a device although its reporter
        # was not authenticated, or leave its subscriptions in place.
        emit_containment(transition, case, by_policy=case.by == POLICY)
    device_id = transition.device.device_id
    transition.effects.append(EndIsolation(transition.next_effect_id(), device_id, case.case_id))
    without = rules_without_response(transition.device, transition.policies, transition.guards, transition.now)
    _issue_remedies(transition, _required_response(transition, without))


def _issue_remedies(transition: Transition, required: RequiredResponse) -> None:
    if transition.device.level is ContainmentLevel.ISOLATED:
        return  # an isolated device receives no command
    for key, remedy in required.remedies:
        # Several rules may require the same remedy; one command is enough, whoever requested it.
        if any(_is_remedy(command, key, remedy) for command in transition.device.commands):
            continue
        before = len(transition.commands)
        commands.issue(transition, remedy.action, remedy.params, by=POLICY, rule=key)
        if len(transition.commands) > before:  # one without a place is tried again
            rules = dict(transition.device.rules)
            rules[key] = replace(rules[key], remedies=rules[key].remedies + 1, last_remedy=transition.now)
            transition.update_device(rules=rules)


def _is_remedy(command: OpenCommand, key: str, remedy: Remedy) -> bool:
    is_same = (command.action, command.params, command.dry_run) == (remedy.action, remedy.params, False)
    return is_same or command.rule == key
