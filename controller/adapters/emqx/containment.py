"""Puts a client into containment: the sequences of restriction and isolation, each with its read-back on every node.

The order inside each is the point; docs/adr/0005 says why.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from controller.adapters.emqx.api import EmqxApi, segment
from controller.adapters.emqx.readback import HOLD_SECONDS, Nodes, Record, nothing, on_every_node, until_holds
from controller.adapters.emqx.restriction import consulted, outside, restriction, wrongly_allowed
from controller.adapters.emqx.rows import DATABASE
from controller.ports.broker import BAN_MARK, Ban, KeepRules, Proof
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError
from schemas.base import MAX_NAME, clean_text

MAX_REASON: Final = MAX_NAME  # characters of a ban's reason
END_SLACK: Final = 1.0  # seconds by which a row's end may differ from what was asked: it tells whole ones


@dataclass(frozen=True, slots=True)
class Scene:
    """What every sequence works with; `api` already notes its steps in `record`."""

    api: EmqxApi
    nodes: Nodes
    clock: Clock
    record: Record
    client_id: str
    deadline: float  # monotonic seconds

    @classmethod
    def of(cls, api: EmqxApi, nodes: Nodes, clock: Clock, client_id: str) -> "Scene":
        """A scene with an empty record.

        Raises:
            BrokerRefusedError: the client id is none that Cordon acts on.
        """
        segment(client_id)
        record = Record()
        return cls(api.noting(record.add), nodes, clock, record, client_id, clock.monotonic() + HOLD_SECONDS)

    async def until_holds(
        self, look: Callable[[], Awaitable[list[str]]], repair: Callable[[], Awaitable[None]]
    ) -> list[str]:
        """Look and repair until nothing is missing or the sequence's time is up; what is missing in the end."""
        return await until_holds(self.clock, self.deadline, look, repair)


async def restrict(scene: Scene, keep: KeepRules) -> Proof:
    """Write the three rules, cut what they no longer allow, read back."""
    urgent = replace(scene, api=scene.api.urgently())
    await write_restriction(urgent, keep)
    try:
        await _cut(urgent)
        missing = await _source_trouble(scene) + await _superuser_trouble(scene)
        missing += await scene.until_holds(lambda: _rules_everywhere(scene), nothing)
        # Only now, with the rules on every node, can a cache or a new subscription no longer come from the old ones.
        missing += await scene.until_holds(lambda: _quiet_everywhere(scene), lambda: _cut(scene))
    except BrokerError as e:
        missing = [str(e)]
    return scene.record.proof(missing)


async def isolate(scene: Scene, keep: KeepRules, *, case: str, reason: str, until: float | None) -> Proof:
    """Ban first, so that the socket is cut at once, then the restriction below it, then read back."""
    by = clean_text(f"{BAN_MARK}{case}", MAX_NAME)
    text = clean_text(reason, MAX_REASON)
    ban, made = await scene.api.urgently().add_ban(scene.client_id, by=by, reason=text, until=until)
    now = scene.clock.now()
    # A row tells whole seconds, cut off: one more is never earlier than the cut was.
    scene.record.cut_at = now if made else min(ban.at + 1, now)
    scene.record.ban_until = ban.until
    if not made:
        scene.record.say("ban there already", _whose(ban))
    try:
        await write_restriction(scene, keep)
        missing = await _source_trouble(scene)
        missing += await scene.until_holds(lambda: _rules_everywhere(scene), nothing)
        if not missing and not made and _is_outdated(ban, by, until):
            await _renew_ban(scene, by=by, reason=reason, until=until)
        missing += await scene.until_holds(lambda: _gone_everywhere(scene), lambda: _throw_out(scene))
    except BrokerError as e:
        missing = [str(e)]
    return scene.record.proof(missing)


async def write_restriction(scene: Scene, keep: KeepRules) -> None:
    """Give the client the three rules, after `keep` has those it had."""
    wanted = restriction(scene.client_id)
    had = await scene.api.rules(scene.client_id)
    if had == wanted:
        return
    await keep(had)
    scene.record.say("keep rules", f"{len(had)} rules kept")
    await scene.api.write_rules(scene.client_id, wanted)


async def rules_missing(api: EmqxApi, client_id: str) -> list[str]:
    """Look at one node for the restriction's rules."""
    return [] if await api.rules(client_id) == restriction(client_id) else ["the rules are not the restriction's"]


def in_force(ban: Ban | None, now: float) -> bool:
    """Whether a row still bans: EMQX lists expired rows for up to a minute."""
    return ban is not None and (ban.until is None or ban.until > now)


async def _cut(scene: Scene) -> None:
    """Make the connection forget what it was allowed, and end what it listened to."""
    await scene.api.clear_cache(scene.client_id)
    held = outside(scene.client_id, await scene.api.subscriptions(scene.client_id))
    if held:
        await scene.api.unsubscribe(scene.client_id, held)
    scene.record.cut_at = scene.clock.now()


def _is_outdated(ban: Ban, by: str, until: float | None) -> bool:
    """Whether a ban of Cordon's is left from an earlier decision: it would end at that one's time."""
    if not ban.is_ours:
        return False
    if ban.by != by or ban.until is None or until is None:
        return ban.by != by or ban.until != until
    return abs(ban.until - until) > END_SLACK


async def _renew_ban(scene: Scene, *, by: str, reason: str, until: float | None) -> None:
    """Put this decision's ban in the place of an older one; EMQX has no update.

    Only with the rules on every node: whoever slips in between the two calls is restricted, and thrown out after them.
    """
    scene.record.say("ban is of an earlier decision", "replaced by this one's")
    await scene.api.lift_ban(scene.client_id)
    ban, _ = await scene.api.add_ban(scene.client_id, by=by, reason=clean_text(reason, MAX_REASON), until=until)
    scene.record.ban_until = ban.until


async def _throw_out(scene: Scene) -> None:
    """Disconnect who came back, and destroy a session that waits with old subscriptions."""
    client = await scene.api.client(scene.client_id)
    kicked = await scene.api.kick(scene.client_id)
    if kicked and client is not None and client.connected:
        scene.record.cut_at = scene.clock.now()


async def _source_trouble(scene: Scene) -> list[str]:
    trouble = consulted(await scene.api.sources())
    return [trouble] if trouble else []


async def _superuser_trouble(scene: Scene) -> list[str]:
    """A superuser passes every rule: it can be isolated, but a restriction of it would be pretended."""
    client = await scene.api.client(scene.client_id)
    if client is None:
        return []
    for link in await scene.api.authenticators():
        user = scene.client_id if link.user_id_type == "clientid" else client.username
        if link.enable and link.backend == DATABASE and await scene.api.is_superuser(link.id, user or ""):
            return ["the client's user is a superuser at EMQX: access rules do not bind it"]
    return []


async def _rules_everywhere(scene: Scene) -> list[str]:
    async def look(api: EmqxApi) -> list[str]:
        return await rules_missing(api, scene.client_id)

    return await on_every_node(scene.api, scene.nodes, scene.record, "rules read back", look)


async def _quiet_everywhere(scene: Scene) -> list[str]:
    async def look(api: EmqxApi) -> list[str]:
        missing = []
        if outside(scene.client_id, await api.subscriptions(scene.client_id)):
            missing.append("subscriptions outside its branch")
        if wrongly_allowed(scene.client_id, await api.cache(scene.client_id)):
            missing.append("its cache allows topics outside its branch")
        return missing

    return await on_every_node(scene.api, scene.nodes, scene.record, "subscriptions and cache read back", look)


async def _gone_everywhere(scene: Scene) -> list[str]:
    async def look(api: EmqxApi) -> list[str]:
        missing = []
        if not in_force(await api.ban_of(scene.client_id), scene.clock.now()):
            missing.append("no ban in force")
        client = await api.client(scene.client_id)
        if client is not None and client.connected:
            missing.append("the client is connected")
        elif client is not None and outside(scene.client_id, await api.subscriptions(scene.client_id)):
            missing.append("its session waits with subscriptions outside its branch")
        return missing

    return await on_every_node(scene.api, scene.nodes, scene.record, "ban and client read back", look)


def _whose(ban: Ban) -> str:
    return f"Cordon's own, by {ban.by}" if ban.is_ours else f"made by {clean_text(ban.by, MAX_NAME)}, left as it is"
