"""Policies in force, and explanations of their results."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from controller.api.auth import CallerDep, scope
from controller.api.context import FleetDep, PoliciesDep, StoreDep, require_device
from controller.api.errors import ApiError, problems
from controller.api.fields import DeviceIdPath, OptionalTimestamp, Params, SecondsAsText, UtcTimestamp, View
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.explain_events import EventExplanation, explain_active_holds
from controller.domain.effects import AuditEntry
from controller.domain.policy.cel import CelExpression
from controller.domain.policy.explain import explain
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
from controller.service.policy.activation import PoliciesReplacedError, PolicyActivation, PolicyTooBroadError
from schemas.durations import duration_text
from schemas.posture import sections_of


def _expression_text(expression: CelExpression | str | None) -> str:
    return expression.text if isinstance(expression, CelExpression) else expression or ""


ExpressionText = Annotated[str, BeforeValidator(_expression_text)]
router = APIRouter(tags=["policies"], responses=problems(401, 422, 429, 503))


class RemedyView(View):
    action: str
    params: Params


class RepeatOffenderView(View):
    """The extension of a containment for each earlier one `within` a time."""

    within: SecondsAsText
    factor: float
    most: SecondsAsText


class ResponseView(View):
    """The response to a failing rule; release after `passing` passing reports over `cool_down`."""

    contain: ContainmentLevel
    isolate_for: str | None
    remediate: Annotated[RemedyView | None, Field(validation_alias="remedy")]
    consecutive: int
    grace: SecondsAsText
    passing: int
    cool_down: SecondsAsText
    repeat: RepeatOffenderView | None

    @field_validator("isolate_for", mode="before")
    @classmethod
    def _only_for_isolation(cls, seconds: float, info: ValidationInfo) -> str | None:
        return duration_text(seconds) if info.data.get("contain") is ContainmentLevel.ISOLATED else None


class RuleView(View):
    """A rule. In `mode` shadow it is evaluated and recorded, without a response."""

    rule: Annotated[str, Field(validation_alias="key")]
    title: str
    mode: EnforcementMode
    why: str
    fix: str
    severity: Severity
    check: ExpressionText
    applies_if: ExpressionText
    response: ResponseView
    references: tuple[str, ...]


class EventResponseView(View):
    """The response to events: after `count` of them `within` a time, and for how long."""

    contain: ContainmentLevel
    remediate: Annotated[RemedyView | None, Field(validation_alias="remedy")]
    count: Annotated[int, Field(validation_alias="consecutive")]
    within: SecondsAsText
    hold: Annotated[SecondsAsText, Field(serialization_alias="for")]


class EventRuleView(View):
    """A rule about events."""

    rule: str
    title: str
    mode: EnforcementMode
    why: str
    fix: str
    severity: Severity
    when: ExpressionText
    applies_to: ExpressionText
    response: EventResponseView
    references: tuple[str, ...]


class EventStandingView(EventRuleView):
    """A rule about events on a device. `fail`: in effect, until `until`; `informational`: still counting."""

    result: RuleResult
    detail: str
    until: OptionalTimestamp


class PolicyView(View):
    name: str
    version: int
    title: str
    applies_to: ExpressionText
    rules: tuple[RuleView, ...]
    events: tuple[EventRuleView, ...]


class SharedPoliciesView(View):
    """The set in force of all controllers: who put it in force, at which, and how this host's files differ."""

    epoch: int
    by: str
    controller: str
    at: UtcTimestamp
    warning: str


class PolicyList(View):
    """`version` identifies this exact set; a device's `judged_by` refers to it. `shared`: of several controllers."""

    version: str
    items: tuple[PolicyView, ...]
    shared: SharedPoliciesView | None = None


class FactView(View):
    """A fact that a rule refers to; `missing`: why it has no value, or only part of it.

    `knowledge`: the entries of the knowledge that it rests on, each with its source and dates.
    """

    name: str
    value: str | None
    missing: str
    knowledge: tuple[str, ...]


class ExplanationView(View):
    """The result of a rule for a device."""

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


class DeviceExplanationView(View):
    device_id: str
    policies: str
    items: tuple[ExplanationView, ...]
    events: tuple[EventStandingView, ...]


def _event_response(response: RuleResponse, terms: EventTerms) -> EventResponseView:
    return EventResponseView.of(response, within=terms.within, hold=terms.hold)


def _event_rule(rule: PolicyRule) -> EventRuleView:
    response = _event_response(rule.response, rule.event or EventTerms())
    return EventRuleView.of(rule, rule=rule.key, when=rule.check, applies_to=rule.applies_if, response=response)


def _event_standing(explanation: EventExplanation) -> EventStandingView:
    return EventStandingView.of(explanation, response=_event_response(explanation.response, explanation.terms))


def _policy(policy: Policy) -> PolicyView:
    return PolicyView.of(policy, events=tuple(map(_event_rule, policy.events)))


def _policies(policies: PolicySet, activation: PolicyActivation) -> PolicyList:
    present = activation.in_force
    shared = SharedPoliciesView.of(present, warning=activation.warning) if present.epoch else None
    return PolicyList(version=policies.version, items=tuple(map(_policy, policies.policies)), shared=shared)


@router.get("/policies", dependencies=[scope("read")])
async def list_policies(fleet: FleetDep, policies: PoliciesDep) -> PolicyList:
    """Returns the policies in force."""
    return _policies(fleet.policies, policies.activation)


@router.post("/policies/reload", dependencies=[scope("policy")], responses=problems(409))
async def reload_policies(fleet: FleetDep, policies: PoliciesDep, caller: CallerDep, force: bool = False) -> PolicyList:
    """Reloads the policy files. The policies in force stay if a file is invalid, or if the new ones would contain more
    devices than the guards allow and `force` is not given.
    """
    before = fleet.policies.version
    try:
        fresh = await policies.activation.reload(force=force, by=caller)
    except PolicyError as e:
        raise ApiError(422, "policy_mistake", str(e)) from e
    except PolicyTooBroadError as e:
        raise ApiError(409, "policy_too_broad", str(e)) from e
    except PoliciesReplacedError as e:
        raise ApiError(409, "policies_replaced", str(e)) from e
    after = fleet.policies.version
    entry = AuditEntry(AuditKind.POLICY_RELOADED, "", caller, "", {"before": before, "after": after, "forced": force})
    await fleet.record(entry)
    return _policies(fresh, policies.activation)


@router.get("/devices/{device_id}/explain", dependencies=[scope("read")], responses=problems(404))
async def explain_device(fleet: FleetDep, store: StoreDep, device_id: DeviceIdPath) -> DeviceExplanationView:
    """Returns every rule with its facts and result for the device's last full report."""
    device = await require_device(fleet, device_id)
    raw = await store.report(device_id)
    if raw is None:
        raise ApiError(404, "no_report", f"{device_id} has not sent a full report yet")
    known = fleet.policies.knowledge
    facts = gather_facts(sections_of(raw), device_id, device.device_class, device.tags, knowledge=known)
    found = explain(fleet.policies, fleet.language, facts)
    items = tuple(ExplanationView.of(one) for one in found)
    events = tuple(_event_standing(one) for one in explain_active_holds(fleet.policies, device))
    return DeviceExplanationView(device_id=device_id, policies=fleet.policies.version, items=items, events=events)
