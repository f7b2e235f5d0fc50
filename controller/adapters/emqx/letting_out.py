"""Lets a client out again: the end of an isolation, and the release; what others made is left alone."""

from controller.adapters.emqx.api import EmqxApi
from controller.adapters.emqx.containment import Scene, in_force, rules_missing
from controller.adapters.emqx.readback import nothing, on_every_node
from controller.adapters.emqx.restriction import restriction
from controller.ports.broker import Proof, Rules
from controller.ports.errors import BrokerError
from schemas.base import MAX_NAME, clean_text


async def end_isolation(scene: Scene) -> Proof:
    """Lift Cordon's ban once the restriction below it is known to hold."""
    wanted = restriction(scene.client_id)
    had = await scene.api.rules(scene.client_id)
    if had != wanted:
        # Writing first: between a lifted ban and the rules the client would be free.
        scene.record.say("restriction was gone", f"{len(had)} rules of someone else replaced")
        await scene.api.write_rules(scene.client_id, wanted)
    try:
        missing = await scene.until_holds(lambda: _rules_are(scene, wanted), nothing)
        if not missing:
            await _lift_own_ban(scene)
            missing = await scene.until_holds(lambda: _no_own_ban(scene), nothing)
    except BrokerError as e:
        missing = [str(e)]
    return scene.record.proof(missing)


async def release(scene: Scene, kept: Rules) -> Proof:
    """Give the client its rules back, then lift Cordon's ban, then let its connection forget the denials.

    The rules come first: a client that reconnects the moment its ban ends would be refused its own subscriptions.
    """
    wanted = await _give_back(scene, kept)
    try:
        missing = await scene.until_holds(lambda: _rules_are(scene, wanted), nothing)
        if not missing:
            await _lift_own_ban(scene)
            await scene.api.clear_cache(scene.client_id)
            missing = await scene.until_holds(lambda: _no_own_ban(scene), nothing)
    except BrokerError as e:
        missing = [str(e)]
    return scene.record.proof(missing)


async def _give_back(scene: Scene, kept: Rules) -> Rules:
    """Restore what was kept; what the client should have from now on."""
    had = await scene.api.rules(scene.client_id)
    if had == kept:
        return kept
    if had != restriction(scene.client_id):
        scene.record.say("rules left", f"{len(had)} rules are someone else's and stay")
        return had
    if kept:
        await scene.api.write_rules(scene.client_id, kept)
    else:
        await scene.api.delete_rules(scene.client_id)
    return kept


async def _lift_own_ban(scene: Scene) -> None:
    ban = await scene.api.ban_of(scene.client_id)
    if ban is None:
        return
    if not ban.is_ours:
        scene.record.say("foreign ban left", f"made by {clean_text(ban.by, MAX_NAME)}")
        return
    await scene.api.lift_ban(scene.client_id)


async def _rules_are(scene: Scene, wanted: Rules) -> list[str]:
    async def look(api: EmqxApi) -> list[str]:
        if wanted == restriction(scene.client_id):
            return await rules_missing(api, scene.client_id)
        return [] if await api.rules(scene.client_id) == wanted else ["the rules are not those that were restored"]

    return await on_every_node(scene.api, scene.nodes, scene.record, "rules read back", look)


async def _no_own_ban(scene: Scene) -> list[str]:
    async def look(api: EmqxApi) -> list[str]:
        ban = await api.ban_of(scene.client_id)
        ours = ban is not None and ban.is_ours and in_force(ban, scene.clock.now())
        return ["Cordon's ban is still there"] if ours else []

    return await on_every_node(scene.api, scene.nodes, scene.record, "ban read back", look)
