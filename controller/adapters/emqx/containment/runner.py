"""Walks through a plan: carries it out, compares it with the broker, or describes it as the requests it would send."""

from collections.abc import Sequence
from typing import Any, Final

from controller.adapters.emqx.client.http import API, ApiRequest
from controller.adapters.emqx.containment.actions import ACTIONS
from controller.adapters.emqx.containment.checks import CHECKS
from controller.adapters.emqx.containment.context import ContainmentRequest, Findings, RunContext
from controller.adapters.emqx.containment.steps import BrokerAction, BrokerCheck
from controller.adapters.emqx.containment.verification import act, find_missing, read_back
from controller.domain.containment.plan import (
    ContainmentAction,
    ContainmentCheck,
    ContainmentPlan,
    PlanStage,
    Subject,
    plan_for,
)
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import PlannedCall, PlannedStage, PlanParameters, Proof
from controller.ports.errors import BrokerError

# What a containment of each level leaves at the broker.
_CHECKS_OF_LEVEL: Final = {
    ContainmentLevel.NONE: (ContainmentCheck.UNBANNED,),
    ContainmentLevel.RESTRICTED: (ContainmentCheck.RESTRICTED, ContainmentCheck.QUIET, ContainmentCheck.UNBANNED),
    ContainmentLevel.ISOLATED: (ContainmentCheck.RESTRICTED, ContainmentCheck.OUT),
}


def actions(names: Sequence[ContainmentAction], subject: Subject, request: ContainmentRequest) -> list[BrokerAction]:
    return [ACTIONS[subject.kind][name](subject, request) for name in names]


def checks(names: Sequence[ContainmentCheck], subject: Subject, request: ContainmentRequest) -> list[BrokerCheck]:
    return [CHECKS[subject.kind][name](subject, request) for name in names]


async def carry_out(run: RunContext, plan: ContainmentPlan) -> Proof:
    """Carries out every stage; the proof says what was done and what is missing.

    Raises:
        BrokerError: the first stage could not be done: nothing is known to have changed. A later error is part of the
            proof, because what was done matters as much as what was not.
    """
    findings = Findings()
    for number, stage in enumerate(plan.stages):
        if stage.gated and (findings.missing or (findings.unread and not stage.protects)):
            continue
        try:
            findings.add(await _carry_out_stage(run, stage))
        except BrokerError as e:
            if number == 0:
                raise
            findings.missing.append(str(e))
            break
    return run.record.proof(findings)


async def _carry_out_stage(run: RunContext, stage: PlanStage) -> Findings:
    acting = run.with_priority() if stage.urgent else run
    for action in actions(stage.do, run.subject, run.request):
        await act(acting, action)
    settings = checks([name for name in stage.see if name.is_setting], run.subject, run.request)
    findings = await find_missing(run, settings)
    read = checks([name for name in stage.see if not name.is_setting], run.subject, run.request)
    findings.add(await read_back(run, read, actions(stage.again, run.subject, run.request)))
    return findings


async def compare(run: RunContext, level: ContainmentLevel) -> list[str]:
    """Returns what is not as a containment of this level leaves it; changes nothing."""
    findings = await find_missing(run, checks(_CHECKS_OF_LEVEL[level], run.subject, run.request))
    return findings.missing


def describe(subject: Subject, parameters: PlanParameters) -> tuple[PlannedStage, ...]:
    """Describes the plan for these parameters by the requests that its steps declare; asks EMQX nothing.

    Raises:
        BrokerRefusedError: not a name that Cordon acts on.
    """
    plan = plan_for(parameters.goal, subject.kind, kick=parameters.kick, clear_retained=parameters.clear_retained)
    request = ContainmentRequest.of(parameters)
    stages = []
    for stage in plan.stages:
        done = zip(stage.do, actions(stage.do, subject, request), strict=True)
        read = zip(stage.see, checks(stage.see, subject, request), strict=True)
        stages.append(
            PlannedStage(
                acts=tuple((name.value, _calls(action.planned, "one node")) for name, action in done),
                looks=tuple(
                    (name.value, _calls(check.planned, "each node" if check.on_every_node else "one node"))
                    for name, check in read
                ),
                repeated=tuple(name.value for name in stage.again),
                gated=stage.gated,
            )
        )
    return tuple(stages)


def _calls(planned: Sequence[tuple[ApiRequest[Any], str]], where: str) -> tuple[PlannedCall, ...]:
    return tuple(PlannedCall(call.method, _path(call), call.body, where, only) for call, only in planned)


def _path(request: ApiRequest[Any]) -> str:
    query = "&".join(
        f"{name}={each}"
        for name, value in (request.query or {}).items()
        for each in (value if isinstance(value, tuple) else (value,))
    )
    return f"{API}{request.path}" + (f"?{query}" if query else "")
