"""Carries a plan out: its acts in their order, its looks on every node, and again what was found undone."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.containment.actions import ACTS
from controller.adapters.emqx.containment.checks import LABELS, LOOKS
from controller.adapters.emqx.containment.context import RunContext
from controller.adapters.emqx.containment.verification import on_every_node
from controller.domain.containment.plan import ContainmentAction, ContainmentCheck, ContainmentPlan, PlanStage
from controller.ports.broker import Proof
from controller.ports.errors import BrokerError


@dataclass(frozen=True, slots=True)
class PlanStepHandlers:
    """How the acts and looks of a plan are done for one kind of subject.

    `through_one`: looks that one node answers for all, because it asks the node that has the session.
    """

    acts: Mapping[ContainmentAction, Callable[[RunContext], Awaitable[None]]]
    looks: Mapping[ContainmentCheck, Callable[[RunContext, EmqxApi], Awaitable[list[str]]]]
    through_one: frozenset[ContainmentCheck] = frozenset()


CLIENT: Final = PlanStepHandlers(ACTS, LOOKS)


async def carry_out(scene: RunContext, plan: ContainmentPlan, tools: PlanStepHandlers = CLIENT) -> Proof:
    """Do all of it; what was done and what is missing.

    Raises:
        BrokerError: the first stage could not be done: nothing is known to have changed. From then on an error is
            part of the proof, because what was done matters as much as what was not.
    """
    missing: list[str] = []
    for number, stage in enumerate(plan.stages):
        if stage.gated and missing:
            continue
        try:
            await _do(scene, stage, tools)
            missing += await see(scene, stage, tools)
        except BrokerError as e:
            if number == 0:
                raise
            return scene.record.proof([*missing, str(e)])
    return scene.record.proof(missing)


async def _do(scene: RunContext, stage: PlanStage, tools: PlanStepHandlers) -> None:
    acting = scene.urgently() if stage.urgent else scene
    for act in stage.do:
        await tools.acts[act](acting)


async def see(scene: RunContext, stage: PlanStage, tools: PlanStepHandlers) -> list[str]:
    """Look, and do again what the stage repeats; what is missing in the end."""
    missing: list[str] = []
    for look in stage.see:
        if look.is_setting:
            missing += await tools.looks[look](scene, scene.api)

    async def repair() -> None:
        for act in stage.again:
            await tools.acts[act](scene)

    async def everything() -> list[str]:
        found: list[str] = []
        for look in stage.see:
            if not look.is_setting:
                found += await _at_the_nodes(scene, look, tools)
        return found

    return missing + await scene.until_holds(everything, repair)


async def _at_the_nodes(scene: RunContext, look: ContainmentCheck, tools: PlanStepHandlers) -> list[str]:
    if not look.is_everywhere or look in tools.through_one:
        found = await tools.looks[look](scene, scene.api)
        scene.record.say(LABELS[look], "; ".join(found) or "as wanted")
        return found

    async def here(api: EmqxApi) -> list[str]:
        return await tools.looks[look](scene, api)

    return await on_every_node(scene.api, scene.nodes, scene.record, LABELS[look], here)
