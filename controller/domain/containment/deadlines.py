"""Deadlines of a device: when time alone changes something next, and what happens then."""

import math

from controller.domain import commands
from controller.domain.containment import cases, device_events
from controller.domain.device import Device, RuleState
from controller.domain.events import DeadlineReached
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel, PolicyRule, PolicySet
from controller.domain.transition import Transition


def next_deadline(
    device: Device, policies: PolicySet, guards: FleetGuards = NO_GUARDS, now: float = 0.0, *, after: float = -math.inf
) -> float | None:
    """Returns when the next `DeadlineReached` is due, Unix seconds, without those that are not later than `after`.

    Waivers that have expired at `now` do not count.
    """
    times: list[float] = [commands.deadline_of(command) for command in device.commands]
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
            # During a probation no grace period leads to an isolation.
            probation = case.probation_until if case is not None else 0.0
            times.append(max(state.since + rule.response.grace, probation))
    return min((time for time in times if time > after), default=None)


def _waits_for_grace(device: Device, rule: PolicyRule, state: RuleState) -> bool:
    response = rule.response
    if state.result is not RuleResult.FAIL or response.grace <= 0 or state.streak < response.consecutive:
        return False
    if device.pending is not None and device.pending.level.rank >= response.contain.rank:
        return False  # an operator has to decide first
    if device.reported_at < device.refused_until:
        return False  # time alone contains no device by a report whose sender was refused
    # Otherwise the response is in force already, or needs a new report first.
    return response.contain.rank > device.level.rank and not device.stale and not rule.shadow


def on_deadline_reached(transition: Transition, _event: DeadlineReached) -> None:
    """Expires commands and event holds, ends an isolation whose time is over, and applies grace periods that ended."""
    commands.expire(transition)
    device_events.expire_event_holds(transition)
    case = transition.device.case
    if (
        case is not None
        and case.level is ContainmentLevel.ISOLATED
        and case.isolate_until is not None
        and transition.now >= case.isolate_until
    ):
        # An operator's hold outlasts the isolation, also that of a restriction below it.
        hold_until = max(case.hold_until, case.held_below)
        cases.end_isolation(transition, case, "cordon", "its time is over", hold_until=hold_until)
    elif not transition.device.stale:
        device, guards = transition.device, transition.guards
        # Old reports contain no device: from before a long absence of the controller, evaluated by other policies, or
        # by a sender whose identity was refused.
        is_fresh = (
            transition.now - device.last_seen <= guards.fresh_for
            and device.judged_by in ("", transition.policies.version)
            and device.reported_at >= device.refused_until
        )
        cases.apply_response(
            transition,
            evidence_at=transition.now,
            earliest_evidence_at=device.reported_at,
            may_release=False,
            may_contain=is_fresh,
        )
