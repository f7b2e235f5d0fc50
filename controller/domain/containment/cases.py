"""How a case opens, grows, steps down and ends."""

from dataclasses import dataclass, replace
from typing import Final

from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.commands import issue
from controller.domain.containment import admission
from controller.domain.containment.response import RequiredResponse, inert, is_settled, passes, releases, wanted
from controller.domain.device import ContainmentCase, Device, OpenCommand
from controller.domain.effects import (
    NO_OPTIONS,
    ContainmentOptions,
    Effect,
    EndIsolation,
    IsolateClient,
    ReleaseClient,
    RestrictClient,
)
from controller.domain.evidence import Evidence
from controller.domain.policy.model import ContainmentLevel, Remedy
from controller.domain.transition import Transition


@dataclass(frozen=True, slots=True)
class ContainmentEvidence:
    """The words behind a decision.

    `evidence_at`: when the message arrived that led to it, `said_at`: when the earliest one did that it needs, both
    Unix seconds. `evidence`: what the messages prove of who sent them.
    """

    evidence_at: float
    said_at: float
    evidence: Evidence

    def may_contain(self, now: float, refused_until: float) -> bool:
        """Whether it is worth asking the broker; a signature is worth the same whatever was refused before."""
        return self.evidence is not Evidence.CLAIMED and (self.evidence.may_contain or now >= refused_until)

    def with_events(self, draft: Transition, want: RequiredResponse, without: frozenset[str]) -> "ContainmentEvidence":
        """The same, or less where what is wanted needs events that were told before.

        A report proves who sent it, not who told of an event an hour ago; and of a number of events the first may have
        been somebody else's.
        """
        rules = draft.device.rules
        told = [key for key in want.causes if rules[key].until]
        if not told:
            return self
        alone = wanted(rules, draft.policies, draft.now, without.union(told))
        if alone.level.rank >= want.level.rank:
            return self
        said_at = min(self.said_at, *(rules[key].since for key in told))
        evidence = Evidence.UNASKED if self.evidence.may_contain else self.evidence
        return ContainmentEvidence(self.evidence_at, said_at, evidence)


POLICY: Final = "policy"
PROBATION: Final = 120.0  # seconds in which a device that stepped down may be repaired before it is isolated again
REFUSAL_PAUSE: Final = 300.0  # seconds before a policy tries again to contain a device nobody vouches for
LATER_PAUSE: Final = 5.0  # seconds before it listens again to one that proved itself, but connected after the report
FOREVER: Final = float("inf")
MAX_OFFENCES: Final = 16  # earlier cases remembered of one device


def respond(
    draft: Transition,
    *,
    evidence_at: float,
    said_at: float | None = None,
    may_release: bool,
    evidence: Evidence = Evidence.UNASKED,
    may_contain: bool = True,
) -> None:
    """Bring case and commands to what the device's rules ask for.

    `evidence_at`: when what led here arrived, Unix seconds; `said_at`: when the report behind it did, if that was
    earlier. `may_release`: it was a fresh report.
    `evidence`: what that report proved of who sent it; what is merely claimed contains nobody. `may_contain`: what is
    known of the device is fresh enough for that.
    """
    device = draft.device
    without = inert(device, draft.policies, draft.guards, draft.now)
    want = _wanted(draft, without)
    case = _count_passing(draft, want, without) if may_release else device.case
    said = ContainmentEvidence(evidence_at, evidence_at if said_at is None else said_at, evidence).with_events(
        draft, want, without
    )
    vouched = may_contain and said.may_contain(draft.now, device.refused_until)
    if want.level.rank <= device.level.rank:
        admission.forget(draft, want)
    if case is None:
        if want.level is not ContainmentLevel.NONE and vouched and admission.admits(draft, want, evidence_at):
            _open(draft, want, said)
    elif may_release and _may_close(draft, case, want, without):
        _close(draft, case, POLICY, "a fresh report passes")
    elif want.level.rank > case.level.rank and draft.now >= case.probation_until:
        if vouched and admission.admits(draft, want, evidence_at):
            _escalate(draft, case, want, said)
    elif case.by == POLICY and want.causes and not set(want.causes) <= set(case.causes):
        # A new cause under the same level has to pass too before the device is free.
        draft.update_case(case, causes=tuple(dict.fromkeys(case.causes + want.causes)))
    _repair(draft, want)


def _wanted(draft: Transition, without: frozenset[str]) -> RequiredResponse:
    device = draft.device
    return wanted(device.rules, draft.policies, draft.now, without, _offences(device))


def _offences(device: Device) -> tuple[float, ...]:
    """Earlier cases that count: not the present one, unless it was served and did not help."""
    case = device.case
    if case is None or case.probation_until:
        return device.offences
    return tuple(at for at in device.offences if at < case.opened_at)


def _count_passing(draft: Transition, want: RequiredResponse, without: frozenset[str]) -> ContainmentCase | None:
    case = draft.device.case
    if case is None or case.level is not ContainmentLevel.RESTRICTED:
        return case
    if passes(case, draft.device.rules, want, without):
        since = case.passing_since if case.passing else draft.now
        return draft.update_case(case, passing=case.passing + 1, passing_since=since)
    return draft.update_case(case, passing=0, passing_since=0.0) if case.passing else case


def _may_close(draft: Transition, case: ContainmentCase, want: RequiredResponse, without: frozenset[str]) -> bool:
    if not releases(case, draft.device.rules, want, draft.now, without):
        return False
    earlier = tuple(at for at in draft.device.offences if at < case.opened_at)
    return is_settled(case, draft.policies, earlier, draft.now, without)


def _open(draft: Transition, want: RequiredResponse, said: ContainmentEvidence, approved_by: str = "") -> None:
    until = draft.now + want.isolate_for if want.level is ContainmentLevel.ISOLATED else None
    case = ContainmentCase(
        case_id=draft.event_id,
        level=want.level,
        causes=want.causes,
        by=POLICY,
        reason="fails " + ", ".join(want.causes),
        opened_at=draft.now,
        evidence_at=said.evidence_at,
        said_at=said.said_at,
        isolate_until=until,
        evidence=said.evidence,
        charged=bool(draft.charge),
        approved_by=approved_by,
    )
    draft.update(case=case, offences=(*draft.device.offences, draft.now)[-MAX_OFFENCES:])
    draft.record(
        AuditKind.CONTAINMENT_DECIDED,
        approved_by or "cordon",
        level=want.level.value,
        causes=list(want.causes),
        reason=case.reason,
        until=until,
        evidence=said.evidence.value,
    )
    _enforce(draft, case, by_policy=True)


def _escalate(
    draft: Transition, case: ContainmentCase, want: RequiredResponse, said: ContainmentEvidence, approved_by: str = ""
) -> None:
    if case.probation_until:  # it was isolated before, and that did not help
        draft.update(offences=(*draft.device.offences, draft.now)[-MAX_OFFENCES:])
    # From here on it is the policy's case: only a vouched identity may take it further than an operator did.
    case = draft.update_case(
        case,
        level=want.level,
        by=POLICY,
        causes=tuple(dict.fromkeys(case.causes + want.causes)),
        evidence_at=said.evidence_at,
        said_at=said.said_at,
        evidence=said.evidence,
        isolate_until=draft.now + want.isolate_for,
        reason="fails " + ", ".join(want.causes),
        passing=0,
        approved_by=approved_by,
    )
    draft.record(
        AuditKind.CONTAINMENT_ESCALATED,
        approved_by or "cordon",
        level=case.level.value,
        causes=list(want.causes),
        until=case.isolate_until,
        evidence=said.evidence.value,
    )
    _enforce(draft, case, by_policy=True)


def approve(draft: Transition, by: str, reason: str) -> None:
    """An operator lets through what a guard held back, as far as the device's rules still ask for it."""
    device = draft.device
    pending, case = device.pending, device.case
    if pending is None:
        draft.decision = DecisionKind.NO_PENDING
        draft.record(AuditKind.CONTAINMENT_NO_PENDING, by, reason=reason)
        return
    without = inert(device, draft.policies, draft.guards, draft.now)
    want = _wanted(draft, without)
    said = ContainmentEvidence(draft.now, device.last_seen, Evidence.UNASKED).with_events(draft, want, without)
    draft.decision = DecisionKind.APPROVED
    draft.record(AuditKind.CONTAINMENT_APPROVED, by, reason=reason, why=pending.why.value, level=want.level.value)
    draft.update(pending=None)
    if device.stale or want.level.rank <= device.level.rank:
        draft.decision = DecisionKind.PENDING_CLEARED
        draft.record(AuditKind.CONTAINMENT_PENDING_CLEARED, by, why=pending.why.value, causes=list(pending.causes))
    elif case is None:
        _open(draft, want, said, by)
    else:
        _escalate(draft, case, want, said, by)


def _enforce(draft: Transition, case: ContainmentCase, *, by_policy: bool) -> None:
    effect_id, device_id = draft.next_effect_id(), draft.device.device_id
    if case.level is ContainmentLevel.ISOLATED:
        draft.effects.append(
            IsolateClient(effect_id, device_id, case.case_id, by_policy, case.isolate_until, case.reason, case.evidence)
        )
    else:
        draft.effects.append(RestrictClient(effect_id, device_id, case.case_id, by_policy, case.evidence))


def _close(draft: Transition, case: ContainmentCase, actor: str, reason: str) -> None:
    draft.record(
        AuditKind.CONTAINMENT_RELEASE_DECIDED, actor, reason=reason, contained_seconds=draft.now - case.opened_at
    )
    draft.effects.append(ReleaseClient(draft.next_effect_id(), draft.device.device_id, case.case_id))
    draft.update(case=None)


def step_down(draft: Transition, case: ContainmentCase, actor: str, reason: str, *, hold_until: float = 0.0) -> None:
    """End an isolation: the restriction below it holds, and after `hold_until` a fresh report can free the device."""
    case = draft.update_case(
        case,
        level=ContainmentLevel.RESTRICTED,
        isolate_until=None,
        hold_until=hold_until,
        probation_until=draft.now + PROBATION,
        reason=f"{case.reason}; isolation ended: {reason}",
    )
    draft.record(AuditKind.CONTAINMENT_STEPPED_DOWN, actor, reason=reason)
    if case.proven_level is ContainmentLevel.NONE:
        # The isolation was never proven. Perhaps nobody vouched for the device yet, and ending it writes a restriction;
        # perhaps it never was cut off, and ending it cuts no subscription.
        _enforce(draft, case, by_policy=case.by == POLICY)
    draft.effects.append(EndIsolation(draft.next_effect_id(), draft.device.device_id, case.case_id))
    _repair(draft, _wanted(draft, inert(draft.device, draft.policies, draft.guards, draft.now)))


def operator_contains(draft: Transition, level: ContainmentLevel, by: str, reason: str, hold: float | None) -> None:
    """Contain by hand; a case already in force is taken over, and never made weaker by it."""
    case = draft.device.case
    hold_until = FOREVER if hold is None else draft.now + hold
    if case is not None and case.level.rank > level.rank:
        draft.decision = DecisionKind.KEPT
        draft.record(AuditKind.CONTAINMENT_KEPT, by, reason=reason, level=case.level.value, asked=level.value)
        return
    isolate_until = (None if hold is None else hold_until) if level is ContainmentLevel.ISOLATED else None
    if case is None:
        case = ContainmentCase(draft.event_id, level, (), by, reason, draft.now, draft.now)
    case = replace(
        case,
        level=level,
        by=by,
        reason=reason,
        hold_until=hold_until,
        isolate_until=isolate_until,
        evidence_at=draft.now,
        said_at=draft.now,
    )
    draft.update(case=case, pending=None)
    until = None if hold is None else hold_until
    draft.decision = DecisionKind.CONTAINED
    draft.record(
        AuditKind.CONTAINMENT_DECIDED, by, level=level.value, causes=list(case.causes), reason=reason, until=until
    )
    _enforce(draft, case, by_policy=False)


def operator_releases(draft: Transition, by: str, reason: str) -> None:
    """An isolation steps down to where the device can prove itself; a restriction ends."""
    case = draft.device.case
    if case is None:
        draft.decision = DecisionKind.NOT_IN_FORCE
        draft.record(AuditKind.CONTAINMENT_NOT_IN_FORCE, by, reason=reason)
    elif case.level is ContainmentLevel.ISOLATED:
        draft.decision = DecisionKind.STEPPED_DOWN
        step_down(draft, case, by, reason or "released by an operator")
    else:
        draft.decision = DecisionKind.RELEASED
        _close(draft, case, by, reason)


def vouched(draft: Transition, case_id: str, evidence: Evidence, heard_at: float) -> None:
    """The broker vouches for who spoke at `heard_at`; what the case rests on by now may be somebody else's words."""
    case = draft.device.case
    if case is not None and (case.case_id, case.by, case.heard_at) == (case_id, POLICY, heard_at):
        draft.update_case(case, evidence=evidence)


def refused(draft: Transition, case: ContainmentCase, pause: float = REFUSAL_PAUSE) -> None:
    """The broker does not vouch for who reported: the policy's last decision is taken back, what held before stays.

    For `pause` seconds no policy contains it.
    """
    draft.update(refused_until=max(draft.device.refused_until, draft.now + pause))
    if case.by != POLICY:
        return  # an operator has taken the case over since, and needs nobody's word
    # Events whose teller nobody vouches for are forgotten: a later report would rest on them again.
    rules = draft.device.rules
    draft.update(rules={key: state for key, state in rules.items() if not (state.until and key in case.causes)})
    held_before = case.proven_level is not ContainmentLevel.NONE or draft.now < case.hold_until
    if not held_before:
        if case.charged:
            draft.charge = False
        kept = tuple(at for at in draft.device.offences if at != case.opened_at)
        draft.update(case=None, offences=kept)
    elif case.level is ContainmentLevel.ISOLATED and case.proven_level is not ContainmentLevel.ISOLATED:
        case = draft.update_case(case, level=ContainmentLevel.RESTRICTED, isolate_until=None)
        if case.proven_level is ContainmentLevel.NONE:
            # What an operator asked for was overtaken by the isolation before it was carried out.
            _enforce(draft, case, by_policy=False)


def _repairs(command: OpenCommand, key: str, remedy: Remedy) -> bool:
    same = (command.action, command.params, command.dry_run) == (remedy.action, remedy.params, False)
    return same or command.rule == key


def _repair(draft: Transition, want: RequiredResponse) -> None:
    if draft.device.level is ContainmentLevel.ISOLATED:
        return  # it could not hear a command
    for key, remedy in want.remedies:
        # Several rules may ask for the same repair; once is enough, whoever asked.
        if any(_repairs(command, key, remedy) for command in draft.device.commands):
            continue
        rules = dict(draft.device.rules)
        rules[key] = replace(rules[key], remedies=rules[key].remedies + 1, last_remedy=draft.now)
        draft.update(rules=rules)
        issue(draft, remedy.action, remedy.params, by=POLICY, rule=key)


def apply(draft: Transition, options: ContainmentOptions) -> None:
    """Give the effects of this step the options; a containment that was kept as it is has no effect to change."""
    if options != NO_OPTIONS:
        draft.effects[:] = [_with(effect, options) for effect in draft.effects]


def _with(effect: Effect, options: ContainmentOptions) -> Effect:
    match effect:
        case RestrictClient():
            return replace(effect, kick=options.kick)
        case IsolateClient():
            return replace(effect, clear_retained=options.clear_retained)
        case _:
            return effect
