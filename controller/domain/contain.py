"""How a case opens, grows, steps down and ends."""

from dataclasses import replace
from typing import Final

from controller.domain.commands import issue
from controller.domain.device import Case, OpenCommand
from controller.domain.draft import Draft
from controller.domain.effects import EndIsolation, IsolateClient, ReleaseClient, RestrictClient
from controller.domain.evidence import Evidence
from controller.domain.policy import Level, Remedy
from controller.domain.respond import Wanted, releases, wanted

POLICY: Final = "policy"
PROBATION: Final = 120.0  # seconds in which a device that stepped down may be repaired before it is isolated again
REFUSAL_PAUSE: Final = 300.0  # seconds before a policy tries again to contain a device nobody vouches for
FOREVER: Final = float("inf")


def respond(draft: Draft, *, evidence_at: float, may_release: bool, evidence: Evidence = Evidence.UNASKED) -> None:
    """Bring case and commands to what the device's rules ask for.

    `evidence_at`: when the report behind it arrived, Unix seconds. `may_release`: it was a fresh report.
    `evidence`: what that report proved of who sent it; what is merely claimed contains nobody.
    """
    want = wanted(draft.device.rules, draft.policies, draft.now)
    case = draft.device.case
    vouched = draft.now >= draft.device.refused_until and evidence is not Evidence.CLAIMED
    if case is None:
        if want.level is not Level.NONE and vouched:
            _open(draft, want, evidence_at, evidence)
    elif may_release and releases(case, draft.device.rules, want, draft.now):
        _close(draft, case, POLICY, "a fresh report passes")
    elif want.level.rank > case.level.rank and vouched and draft.now >= case.probation_until:
        _escalate(draft, case, want, evidence_at, evidence)
    elif case.by == POLICY and want.causes and not set(want.causes) <= set(case.causes):
        # A new cause under the same level has to pass too before the device is free.
        draft.update_case(case, causes=tuple(dict.fromkeys(case.causes + want.causes)))
    _repair(draft, want)


def _open(draft: Draft, want: Wanted, evidence_at: float, evidence: Evidence) -> None:
    until = draft.now + want.isolate_for if want.level is Level.ISOLATED else None
    case = Case(
        case_id=draft.event_id,
        level=want.level,
        causes=want.causes,
        by=POLICY,
        reason="fails " + ", ".join(want.causes),
        opened_at=draft.now,
        evidence_at=evidence_at,
        isolate_until=until,
        evidence=evidence,
    )
    draft.update(case=case)
    draft.record(
        "contained",
        level=want.level.value,
        causes=list(want.causes),
        reason=case.reason,
        until=until,
        evidence=evidence.value,
    )
    _enforce(draft, case, by_policy=True)


def _escalate(draft: Draft, case: Case, want: Wanted, evidence_at: float, evidence: Evidence) -> None:
    # From here on it is the policy's case: only a vouched identity may take it further than an operator did.
    case = draft.update_case(
        case,
        level=want.level,
        by=POLICY,
        causes=tuple(dict.fromkeys(case.causes + want.causes)),
        evidence_at=evidence_at,
        evidence=evidence,
        isolate_until=draft.now + want.isolate_for,
        reason="fails " + ", ".join(want.causes),
    )
    draft.record(
        "escalated", level=case.level.value, causes=list(want.causes), until=case.isolate_until, evidence=evidence.value
    )
    _enforce(draft, case, by_policy=True)


def _enforce(draft: Draft, case: Case, *, by_policy: bool) -> None:
    effect_id, device_id = draft.next_effect_id(), draft.device.device_id
    if case.level is Level.ISOLATED:
        draft.effects.append(
            IsolateClient(effect_id, device_id, case.case_id, by_policy, case.isolate_until, case.reason, case.evidence)
        )
    else:
        draft.effects.append(RestrictClient(effect_id, device_id, case.case_id, by_policy, case.evidence))


def _close(draft: Draft, case: Case, actor: str, reason: str) -> None:
    draft.record("release decided", actor, reason=reason, contained_seconds=draft.now - case.opened_at)
    draft.effects.append(ReleaseClient(draft.next_effect_id(), draft.device.device_id, case.case_id))
    draft.update(case=None)


def step_down(draft: Draft, case: Case, actor: str, reason: str, *, hold_until: float = 0.0) -> None:
    """End an isolation: the restriction below it holds, and after `hold_until` a fresh report can free the device."""
    case = draft.update_case(
        case,
        level=Level.RESTRICTED,
        isolate_until=None,
        hold_until=hold_until,
        probation_until=draft.now + PROBATION,
        reason=f"{case.reason}; isolation ended: {reason}",
    )
    draft.record("stepped down", actor, reason=reason)
    draft.effects.append(EndIsolation(draft.next_effect_id(), draft.device.device_id, case.case_id))
    _repair(draft, wanted(draft.device.rules, draft.policies, draft.now))


def operator_contains(draft: Draft, level: Level, by: str, reason: str, hold: float | None) -> None:
    """Contain by hand; a case already in force is taken over, and never made weaker by it."""
    case = draft.device.case
    hold_until = FOREVER if hold is None else draft.now + hold
    if case is not None and case.level.rank > level.rank:
        draft.record("containment kept", by, reason=reason, level=case.level.value, asked=level.value)
        return
    isolate_until = (None if hold is None else hold_until) if level is Level.ISOLATED else None
    if case is None:
        case = Case(draft.event_id, level, (), by, reason, draft.now, draft.now)
    case = replace(
        case,
        level=level,
        by=by,
        reason=reason,
        hold_until=hold_until,
        isolate_until=isolate_until,
        evidence_at=draft.now,
    )
    draft.update(case=case)
    until = None if hold is None else hold_until
    draft.record("contained", by, level=level.value, causes=list(case.causes), reason=reason, until=until)
    _enforce(draft, case, by_policy=False)


def operator_releases(draft: Draft, by: str, reason: str) -> None:
    """An isolation steps down to where the device can prove itself; a restriction ends."""
    case = draft.device.case
    if case is None:
        draft.record("nothing to release", by, reason=reason)
    elif case.level is Level.ISOLATED:
        step_down(draft, case, by, reason or "released by an operator")
    else:
        _close(draft, case, by, reason)


def refused(draft: Draft, case: Case) -> None:
    """The broker does not vouch for who reported: the policy's last decision is taken back, what held before stays."""
    draft.update(refused_until=draft.now + REFUSAL_PAUSE)
    if case.by != POLICY:
        return  # an operator has taken the case over since, and needs nobody's word
    held_before = case.proven_level is not Level.NONE or draft.now < case.hold_until
    if not held_before:
        draft.update(case=None)
    elif case.level is Level.ISOLATED and case.proven_level is not Level.ISOLATED:
        draft.update_case(case, level=Level.RESTRICTED, isolate_until=None)


def _repairs(command: OpenCommand, key: str, remedy: Remedy) -> bool:
    same = (command.action, command.params, command.dry_run) == (remedy.action, remedy.params, False)
    return same or command.rule == key


def _repair(draft: Draft, want: Wanted) -> None:
    if draft.device.level is Level.ISOLATED:
        return  # it could not hear a command
    for key, remedy in want.remedies:
        # Several rules may ask for the same repair; once is enough, whoever asked.
        if any(_repairs(command, key, remedy) for command in draft.device.commands):
            continue
        rules = dict(draft.device.rules)
        rules[key] = replace(rules[key], remedies=rules[key].remedies + 1, last_remedy=draft.now)
        draft.update(rules=rules)
        issue(draft, remedy.action, remedy.params, by=POLICY, rule=key)
