"""Carries a plan out: its acts in their order, its looks on every node, and again what was found undone."""

from controller.adapters.emqx.acts import ACTS
from controller.adapters.emqx.api import EmqxApi
from controller.adapters.emqx.looks import LABELS, LOOKS
from controller.adapters.emqx.readback import on_every_node
from controller.adapters.emqx.scene import Scene
from controller.domain.containment_plan import Look, Plan, Stage
from controller.ports.broker import Proof
from controller.ports.errors import BrokerError


async def carry_out(scene: Scene, plan: Plan) -> Proof:
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
            await _do(scene, stage)
            missing += await _see(scene, stage)
        except BrokerError as e:
            if number == 0:
                raise
            return scene.record.proof([*missing, str(e)])
    return scene.record.proof(missing)


async def _do(scene: Scene, stage: Stage) -> None:
    acting = scene.urgently() if stage.urgent else scene
    for act in stage.do:
        await ACTS[act](acting)


async def _see(scene: Scene, stage: Stage) -> list[str]:
    missing: list[str] = []
    for look in stage.see:
        if look.is_setting:
            missing += await LOOKS[look](scene, scene.api)

    async def repair() -> None:
        for act in stage.again:
            await ACTS[act](scene)

    async def everything() -> list[str]:
        found: list[str] = []
        for look in stage.see:
            if not look.is_setting:
                found += await _at_the_nodes(scene, look)
        return found

    return missing + await scene.until_holds(everything, repair)


async def _at_the_nodes(scene: Scene, look: Look) -> list[str]:
    if not look.is_everywhere:
        found = await LOOKS[look](scene, scene.api)
        scene.record.say(LABELS[look], "; ".join(found) or "as wanted")
        return found

    async def here(api: EmqxApi) -> list[str]:
        return await LOOKS[look](scene, api)

    return await on_every_node(scene.api, scene.nodes, scene.record, LABELS[look], here)
