"""Computes the response that a device's unsatisfied rules require, and whether its reports allow a release."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.device import ContainmentCase, Device, RuleState
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, PolicySet, Remedy, RuleResponse

MAX_REMEDIES: Final = 3  # commands for one run of failures; after that an operator has to act
REMEDY_PAUSE: Final = 60.0  # seconds between two commands for the same rule


@dataclass(frozen=True, slots=True)
class RequiredResponse:
    """The response that the unsatisfied rules require.

    `causes`: keys of the rules that require containment. `isolate_for`: seconds. `remedies`: rule keys and commands.
    """

    level: ContainmentLevel
    causes: tuple[str, ...]
    isolate_for: float
    remedies: tuple[tuple[str, Remedy], ...]


def merge_findings(rules: Mapping[str, RuleState], findings: tuple[Finding, ...], now: float) -> dict[str, RuleState]:
    """Returns the rules that are unsatisfied after a report, each with its count of reports in a row."""
    # A report does not end an event hold; its time does.
    merged = {key: state for key, state in rules.items() if state.until}
    for finding in findings:
        if finding.result.is_satisfied:
            continue
        old = rules.get(finding.rule)
        if old is not None and old.result is finding.result:
            merged[finding.rule] = replace(old, streak=old.streak + 1, detail=finding.detail)
        else:
            merged[finding.rule] = RuleState(finding.result, now, 1, finding.detail)
    return merged


def repeat_findings(rules: Mapping[str, RuleState]) -> dict[str, RuleState]:
    """Returns the rules after a heartbeat or report that repeats the last findings."""
    return {key: state if state.until else replace(state, streak=state.streak + 1) for key, state in rules.items()}


def count_satisfied(findings: tuple[Finding, ...]) -> int:
    return len([finding for finding in findings if finding.result.is_satisfied])


def is_response_due(state: RuleState, response: RuleResponse, now: float) -> bool:
    """Whether a rule has failed often and long enough; `unknown` and `error` never require a response."""
    return (
        state.result is RuleResult.FAIL and state.streak >= response.consecutive and now - state.since >= response.grace
    )


def rules_without_response(device: Device, policies: PolicySet, guards: FleetGuards, now: float) -> frozenset[str]:
    """Returns the keys of unsatisfied rules that are in shadow mode or waived."""
    waivers = guards.waivers
    return frozenset(
        key
        for key in device.rules
        if ((rule := policies.rules.get(key)) is not None and rule.shadow)
        or (waivers and waivers.covering(key, device, now) is not None)
    )


def required_response(
    rules: Mapping[str, RuleState],
    policies: PolicySet,
    now: float,
    without: frozenset[str] = frozenset(),
    offences: tuple[float, ...] = (),
) -> RequiredResponse:
    """Returns the response that the unsatisfied rules require at `now`, except the rules in `without`.

    `offences`: when earlier cases of the device opened (Unix seconds), for rules that extend repeated isolations.
    """
    level = ContainmentLevel.NONE
    isolate_for = 0.0
    causes: list[str] = []
    remedies: list[tuple[str, Remedy]] = []
    for key, state in rules.items():
        rule = policies.rules.get(key)
        if rule is None or key in without or not is_response_due(state, rule.response, now):
            continue
        response = rule.response
        if response.contain is not ContainmentLevel.NONE:
            causes.append(key)
            level = max(level, response.contain, key=lambda each: each.rank)
            if response.contain is ContainmentLevel.ISOLATED:
                isolate_for = max(isolate_for, _extended(response, response.isolate_for, offences, now))
        if response.remedy is not None and _may_remedy(state, now):
            remedies.append((key, response.remedy))
    return RequiredResponse(level, tuple(causes), isolate_for, tuple(remedies))


def _extended(response: RuleResponse, seconds: float, offences: tuple[float, ...], now: float) -> float:
    return seconds if response.repeat is None else response.repeat.extend(seconds, offences, now)


def _may_remedy(state: RuleState, now: float) -> bool:
    return state.remedies < MAX_REMEDIES and now - state.last_remedy >= REMEDY_PAUSE


def is_passing_report(
    case: ContainmentCase,
    rules: Mapping[str, RuleState],
    required: RequiredResponse,
    without: frozenset[str] = frozenset(),
) -> bool:
    """Whether a report that left `rules` unsatisfied satisfies every cause of the case and requires no containment.

    Causes in `without` (shadow mode, waived) do not keep a device contained.
    """
    return required.level is ContainmentLevel.NONE and not any(
        cause in rules and cause not in without for cause in case.causes
    )


def counts_towards_release(
    case: ContainmentCase,
    rules: Mapping[str, RuleState],
    required: RequiredResponse,
    now: float,
    without: frozenset[str] = frozenset(),
) -> bool:
    """Whether such a report may release a restricted device; earlier reports are checked by `is_release_stable`."""
    if case.level is not ContainmentLevel.RESTRICTED or now < case.hold_until:
        return False
    return is_passing_report(case, rules, required, without)


def is_release_stable(
    case: ContainmentCase,
    policies: PolicySet,
    offences: tuple[float, ...],
    now: float,
    without: frozenset[str] = frozenset(),
) -> bool:
    """Whether reports have passed often and long enough, so that a flapping posture does not flap the containment.

    `offences`: when earlier cases opened, without the present one.
    """
    for cause in case.causes:
        rule = policies.rules.get(cause)
        if rule is None or cause in without:
            continue
        response = rule.response
        cool_down = _extended(response, response.cool_down, offences, now)
        if case.passing < response.passing or now - case.passing_since < cool_down:
            return False
    return True
