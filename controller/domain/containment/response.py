"""Chooses the reaction from the whole list of findings: how far to cut off, what to repair, when to look again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.commands import due
from controller.domain.device import ContainmentCase, Device, RuleState
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, PolicyRule, PolicySet, Remedy, RuleResponse

MAX_REMEDIES: Final = 3  # commands for one run of failures; after that an operator has to look
REMEDY_PAUSE: Final = 60.0  # seconds between two commands for the same rule


@dataclass(frozen=True, slots=True)
class RequiredResponse:
    """What the findings ask for; `causes` are the rules that ask for containment, most severe level first."""

    level: ContainmentLevel
    causes: tuple[str, ...]
    isolate_for: float
    remedies: tuple[tuple[str, Remedy], ...]


def fold(rules: Mapping[str, RuleState], findings: tuple[Finding, ...], now: float) -> dict[str, RuleState]:
    """The rules that are not satisfied after `findings`, with the length of their run."""
    # A report cannot undo an event; that ends by its time.
    folded = {key: state for key, state in rules.items() if state.until}
    for finding in findings:
        if finding.result.is_satisfied:
            continue
        old = rules.get(finding.rule)
        if old is not None and old.result is finding.result:
            folded[finding.rule] = replace(old, streak=old.streak + 1, detail=finding.detail)
        else:
            folded[finding.rule] = RuleState(finding.result, now, 1, finding.detail)
    return folded


def repeat(rules: Mapping[str, RuleState]) -> dict[str, RuleState]:
    """The same findings once more: a heartbeat says that nothing changed."""
    return {key: state if state.until else replace(state, streak=state.streak + 1) for key, state in rules.items()}


def satisfied(findings: tuple[Finding, ...]) -> int:
    """How many rules a report satisfies."""
    return len([finding for finding in findings if finding.result.is_satisfied])


def is_due(state: RuleState, response: RuleResponse, now: float) -> bool:
    """Whether a rule has failed often and long enough; unknown and error never ask for anything."""
    return (
        state.result is RuleResult.FAIL and state.streak >= response.consecutive and now - state.since >= response.grace
    )


def inert(device: Device, policies: PolicySet, guards: FleetGuards, now: float) -> frozenset[str]:
    """Of the rules that are not satisfied those from which nothing follows: in shadow mode, or waived."""
    waivers = guards.waivers
    return frozenset(
        key
        for key in device.rules
        if ((rule := policies.rules.get(key)) is not None and rule.shadow)
        or (waivers and waivers.covering(key, device, now) is not None)
    )


def wanted(
    rules: Mapping[str, RuleState],
    policies: PolicySet,
    now: float,
    without: frozenset[str] = frozenset(),
    offences: tuple[float, ...] = (),
) -> RequiredResponse:
    """What the rules that are not satisfied ask for at `now`, but those of `without`.

    `offences`: when the device was contained before (Unix seconds), for the rules by which it then stays longer.
    """
    level = ContainmentLevel.NONE
    isolate_for = 0.0
    causes: list[str] = []
    remedies: list[tuple[str, Remedy]] = []
    for key, state in rules.items():
        rule = policies.rules.get(key)
        if rule is None or key in without or not is_due(state, rule.response, now):
            continue
        response = rule.response
        if response.contain is not ContainmentLevel.NONE:
            causes.append(key)
            level = max(level, response.contain, key=lambda one: one.rank)
            if response.contain is ContainmentLevel.ISOLATED:
                isolate_for = max(isolate_for, _stretched(response, response.isolate_for, offences, now))
        if response.remedy is not None and _may_repair(state, now):
            remedies.append((key, response.remedy))
    return RequiredResponse(level, tuple(causes), isolate_for, tuple(remedies))


def _stretched(response: RuleResponse, seconds: float, offences: tuple[float, ...], now: float) -> float:
    return seconds if response.repeat is None else response.repeat.extend(seconds, offences, now)


def _may_repair(state: RuleState, now: float) -> bool:
    return state.remedies < MAX_REMEDIES and now - state.last_remedy >= REMEDY_PAUSE


def passes(
    case: ContainmentCase, rules: Mapping[str, RuleState], want: RequiredResponse, without: frozenset[str] = frozenset()
) -> bool:
    """Whether a report that left `rules` unsatisfied shows that every cause is satisfied, and asks for nothing else.

    A cause from which nothing follows any more (`without`) holds nobody.
    """
    return want.level is ContainmentLevel.NONE and not any(
        cause in rules and cause not in without for cause in case.causes
    )


def releases(
    case: ContainmentCase,
    rules: Mapping[str, RuleState],
    want: RequiredResponse,
    now: float,
    without: frozenset[str] = frozenset(),
) -> bool:
    """Whether such a report may free a restricted device, as far as this one report goes."""
    if case.level is not ContainmentLevel.RESTRICTED or now < case.hold_until:
        return False
    return passes(case, rules, want, without)


def is_settled(
    case: ContainmentCase,
    policies: PolicySet,
    offences: tuple[float, ...],
    now: float,
    without: frozenset[str] = frozenset(),
) -> bool:
    """Whether reports have passed often and long enough, so that a posture that flaps does not flap the containment.

    `offences`: earlier cases; the present one is not among them.
    """
    for cause in case.causes:
        rule = policies.rules.get(cause)
        if rule is None or cause in without:
            continue
        response = rule.response
        cool_down = _stretched(response, response.cool_down, offences, now)
        if case.passing < response.passing or now - case.passing_since < cool_down:
            return False
    return True


def deadline(device: Device, policies: PolicySet, guards: FleetGuards = NO_GUARDS, now: float = 0.0) -> float | None:
    """When `TimePassed` is due next for this device, in Unix seconds; waivers that are over at `now` do not count."""
    times: list[float] = [due(command) for command in device.commands]
    case = device.case
    if case is not None and case.level is ContainmentLevel.ISOLATED and case.isolate_until is not None:
        times.append(case.isolate_until)
    for key, state in device.rules.items():
        if state.until:
            times.append(state.until)
        rule = policies.rules.get(key)
        waiver = guards.waivers.covering(key, device, now) if guards.waivers else None
        if waiver is not None:
            times.append(waiver.expires_at)
        elif rule is not None and _waits_for_grace(device, rule, state):
            # Within a probation nothing follows however long a rule has failed.
            probation = case.probation_until if case is not None else 0.0
            times.append(max(state.since + rule.response.grace, probation))
    return min(times, default=None)


def _waits_for_grace(device: Device, rule: PolicyRule, state: RuleState) -> bool:
    response = rule.response
    if state.result is not RuleResult.FAIL or response.grace <= 0 or state.streak < response.consecutive:
        return False
    if device.pending is not None and device.pending.level.rank >= response.contain.rank:
        return False  # time changes nothing about what waits for an operator
    if device.reported_at < device.refused_until:
        return False  # time alone contains nobody on the words that were refused
    # What the deadline would ask for is in force already, or needs news from the device first.
    return response.contain.rank > device.level.rank and not device.stale and not rule.shadow
