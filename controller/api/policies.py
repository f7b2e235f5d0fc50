"""Policies: what devices are judged by, and why a rule says what it says of one device."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from controller.api.auth import CallerDep, scope
from controller.api.context import ServicesDep
from controller.api.errors import ApiError, problems
from controller.api.fields import DeviceIdPath, UtcTimestamp, View, at
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.explain_events import EventExplanation, explain_active_holds
from controller.domain.effects import AuditEntry
from controller.domain.policy.explain import RuleExplanation, explain
from controller.domain.policy.facts import gather_facts
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import (
    ContainmentLevel,
    EnforcementMode,
    EventTerms,
    Policy,
    PolicyRule,
    PolicySet,
    RuleResponse,
)
from controller.ports.policies import PolicyError
from controller.service.policy.activation import PolicyTooBroadError
from schemas.commands import ParamValue
from schemas.durations import duration_text
from schemas.posture import sections_of

router = APIRouter(tags=["policies"], responses=problems(401, 422, 429, 503))


class RemedyView(View):
    action: str
    params: dict[str, ParamValue]


class RepeatOffenderView(View):
    """How much longer a device stays for each time it was contained `within` before."""

    within: str
    factor: float
    most: str


class ResponseView(View):
    """What follows when a rule fails; released after `passing` reports that pass, for `cool_down`."""

    contain: ContainmentLevel
    isolate_for: str | None
    remediate: RemedyView | None
    consecutive: int
    grace: str
    passing: int
    cool_down: str
    repeat: RepeatOffenderView | None

    @classmethod
    def of(cls, response: RuleResponse) -> "ResponseView":
        """From the policy."""
        remedy, repeat = response.remedy, response.repeat
        return cls(
            contain=response.contain,
            isolate_for=duration_text(response.isolate_for) if response.contain is ContainmentLevel.ISOLATED else None,
            remediate=None if remedy is None else RemedyView(action=remedy.action, params=dict(remedy.params)),
            consecutive=response.consecutive,
            grace=duration_text(response.grace),
            passing=response.passing,
            cool_down=duration_text(response.cool_down),
            repeat=None
            if repeat is None
            else RepeatOffenderView(
                within=duration_text(repeat.within), factor=repeat.factor, most=duration_text(repeat.most)
            ),
        )


class RuleView(View):
    """`mode` shadow: judged and recorded, never acted on."""

    rule: str
    title: str
    mode: EnforcementMode
    why: str
    fix: str
    severity: Severity
    check: str
    applies_if: str
    response: ResponseView
    references: tuple[str, ...]


class EventResponseView(View):
    """What follows when events break a rule: after `count` of them within `within`, and for how long."""

    contain: ContainmentLevel
    remediate: RemedyView | None
    count: int
    within: str
    hold: Annotated[str, Field(serialization_alias="for")]

    @classmethod
    def of(cls, response: RuleResponse, terms: EventTerms) -> "EventResponseView":
        """From the policy."""
        remedy = response.remedy
        return cls(
            contain=response.contain,
            remediate=None if remedy is None else RemedyView(action=remedy.action, params=dict(remedy.params)),
            count=response.consecutive,
            within=duration_text(terms.within),
            hold=duration_text(terms.hold),
        )


class EventRuleView(View):
    """A rule about events; on a device with how it stands there (`until`: when that ends)."""

    rule: str
    title: str
    mode: EnforcementMode
    why: str
    fix: str
    severity: Severity
    when: str
    applies_to: str
    response: EventResponseView
    references: tuple[str, ...]


class EventStandingView(EventRuleView):
    """A rule about events on one device: `fail` asks for something, `informational` still counts."""

    result: RuleResult
    detail: str
    until: UtcTimestamp | None

    @classmethod
    def of(cls, one: EventExplanation) -> "EventStandingView":
        """The explanation with its response in words."""
        fields: dict[str, Any] = {name: getattr(one, name) for name in cls.model_fields}
        fields["response"] = EventResponseView.of(one.response, one.terms)
        fields["until"] = at(one.until) if one.until else None
        return cls(**fields)


class PolicyView(View):
    name: str
    version: int
    title: str
    applies_to: str
    rules: tuple[RuleView, ...]
    events: tuple[EventRuleView, ...]


class PolicyList(View):
    """`version` names this exact set; a device's `judged_by` refers to it."""

    version: str
    items: tuple[PolicyView, ...]


class FactView(View):
    """A fact that a rule refers to; `missing` says why there is no value, or that it is only a part."""

    name: str
    value: str | None
    missing: str


class ExplanationView(View):
    """One rule on one device."""

    rule: str
    title: str
    mode: EnforcementMode
    result: RuleResult
    detail: str
    severity: Severity
    check: str
    applies_if: str
    applies_to: str
    facts: tuple[FactView, ...]
    why: str
    fix: str
    response: ResponseView
    references: tuple[str, ...]

    @classmethod
    def of(cls, one: RuleExplanation) -> "ExplanationView":
        """The explanation with its response in words."""
        fields: dict[str, Any] = {name: getattr(one, name) for name in cls.model_fields}
        fields["facts"] = tuple(FactView(**asdict(fact)) for fact in one.facts)
        fields["response"] = ResponseView.of(one.response)
        return cls(**fields)


class DeviceExplanationView(View):
    device_id: str
    policies: str
    items: tuple[ExplanationView, ...]
    events: tuple[EventStandingView, ...]


def _rule(rule: PolicyRule) -> RuleView:
    return RuleView(
        rule=rule.key,
        title=rule.title,
        mode=rule.mode,
        why=rule.why,
        fix=rule.fix,
        severity=rule.severity,
        check=rule.check.text,
        applies_if="" if rule.applies_if is None else rule.applies_if.text,
        response=ResponseView.of(rule.response),
        references=rule.references,
    )


def _event_rule(rule: PolicyRule) -> EventRuleView:
    return EventRuleView(
        rule=rule.key,
        title=rule.title,
        mode=rule.mode,
        why=rule.why,
        fix=rule.fix,
        severity=rule.severity,
        when=rule.check.text,
        applies_to="" if rule.applies_if is None else rule.applies_if.text,
        response=EventResponseView.of(rule.response, rule.event or EventTerms()),
        references=rule.references,
    )


def _policy(policy: Policy) -> PolicyView:
    return PolicyView(
        name=policy.name,
        version=policy.version,
        title=policy.title,
        applies_to="" if policy.applies_to is None else policy.applies_to.text,
        rules=tuple(_rule(rule) for rule in policy.rules),
        events=tuple(_event_rule(rule) for rule in policy.events),
    )


def _all(policies: PolicySet) -> PolicyList:
    return PolicyList(version=policies.version, items=tuple(_policy(one) for one in policies.policies))


@router.get("/policies", dependencies=[scope("read")])
async def list_policies(services: ServicesDep) -> PolicyList:
    """The policies in force."""
    return _all(services.keeper.policies)


@router.post("/policies/reload", dependencies=[scope("policy")], responses=problems(409))
async def reload_policies(services: ServicesDep, caller: CallerDep, force: bool = False) -> PolicyList:
    """Read the policy files again. With a mistake in any of them, those in force stay; also with policies that would
    contain more devices than the guards allow, unless `force` is given.
    """
    before = services.keeper.policies.version
    try:
        fresh = await services.reload_policies(force=force)
    except PolicyError as e:
        raise ApiError(422, "policy_mistake", str(e)) from e
    except PolicyTooBroadError as e:
        raise ApiError(409, "policy_too_broad", str(e)) from e
    after = services.keeper.policies.version
    entry = AuditEntry(AuditKind.POLICY_RELOADED, "", caller, "", {"before": before, "after": after, "forced": force})
    await services.keeper.record(entry)
    return _all(fresh)


@router.get("/devices/{device_id}/explain", dependencies=[scope("read")], responses=problems(404))
async def explain_device(services: ServicesDep, device_id: DeviceIdPath) -> DeviceExplanationView:
    """Every rule on the device's last full report: what was asked, of which facts, and what came out."""
    device = services.device(device_id)
    keeper = services.keeper
    raw = await services.store.report(device_id)
    if raw is None:
        raise ApiError(404, "no_report", f"{device_id} has not sent a full report yet")
    facts = gather_facts(sections_of(raw), device_id, device.device_class, device.tags)
    found = explain(keeper.policies, keeper.language, facts)
    items = tuple(ExplanationView.of(one) for one in found)
    events = tuple(EventStandingView.of(one) for one in explain_active_holds(keeper.policies, device))
    return DeviceExplanationView(device_id=device_id, policies=keeper.policies.version, items=items, events=events)
