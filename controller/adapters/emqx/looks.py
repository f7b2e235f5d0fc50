"""Each look of a plan: what is read at a node, and what is missing there."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from controller.adapters.emqx.api import EmqxApi
from controller.adapters.emqx.restriction import consulted, outside, restriction, wrongly_allowed
from controller.adapters.emqx.rows import DATABASE
from controller.adapters.emqx.scene import Scene
from controller.domain.containment_plan import Look
from controller.ports.broker import Ban
from controller.ports.errors import BrokerNotFoundError

# Under what the read-back stands in the proof.
LABELS: Final[Mapping[Look, str]] = {
    Look.SOURCE: "order of sources read",
    Look.SUPERUSER: "superuser read",
    Look.RESTRICTED: "rules read back",
    Look.RESTORED: "rules read back",
    Look.QUIET: "subscriptions and cache read back",
    Look.OUT: "ban and client read back",
    Look.UNBANNED: "ban read back",
    Look.NO_RETAINED: "retained messages read back",
}


def in_force(ban: Ban | None, now: float) -> bool:
    """Whether a row still bans: EMQX lists expired rows for up to a minute."""
    return ban is not None and (ban.until is None or ban.until > now)


async def _source(scene: Scene, _api: EmqxApi) -> list[str]:
    trouble = consulted(await scene.shared.sources.get())
    scene.record.say(LABELS[Look.SOURCE], trouble or "as wanted")
    return [trouble] if trouble else []


async def _superuser(scene: Scene, api: EmqxApi) -> list[str]:
    """A superuser passes every rule: it can be isolated, but a restriction of it would be pretended."""
    client = await scene.shared.clients_at[api.node].get(scene.subject, scene.record)
    if client is None:
        return []
    for link in await scene.shared.authenticators.get():
        user = scene.subject if link.user_id_type == "clientid" else client.username
        if link.enable and link.backend == DATABASE and await api.is_superuser(link.id, user or ""):
            return ["the client's user is a superuser at EMQX: access rules do not bind it"]
    return []


async def _restricted(scene: Scene, api: EmqxApi) -> list[str]:
    wanted = restriction(scene.subject)
    return [] if await api.rules(scene.subject) == wanted else ["the rules are not the restriction's"]


async def _restored(scene: Scene, api: EmqxApi) -> list[str]:
    wanted = scene.found.restored
    return [] if await api.rules(scene.subject) == wanted else ["the rules are not those that were restored"]


async def _quiet(scene: Scene, api: EmqxApi) -> list[str]:
    missing = []
    if outside(scene.subject, await api.subscriptions(scene.subject)):
        missing.append("subscriptions outside its branch")
    if wrongly_allowed(scene.subject, await api.cache(scene.subject)):
        missing.append("its cache allows topics outside its branch")
    return missing


async def _out(scene: Scene, api: EmqxApi) -> list[str]:
    """A node refuses whom its own table bans, before it looks at a password: with nobody in, that is the cut."""
    missing = []
    if not in_force(await api.ban_of(scene.subject), scene.clock.now()):
        missing.append("no ban in force")
    client = await scene.shared.clients_at[api.node].get(scene.subject, scene.record)
    if client is not None and client.connected:
        missing.append("the client is connected")
    elif client is not None and outside(scene.subject, await api.subscriptions(scene.subject)):
        missing.append("its session waits with subscriptions outside its branch")
    return missing


async def _unbanned(scene: Scene, api: EmqxApi) -> list[str]:
    ban = await api.ban_of(scene.subject)
    ours = ban is not None and ban.is_ours and in_force(ban, scene.clock.now())
    return ["Cordon's ban is still there"] if ours else []


async def _no_retained(scene: Scene, api: EmqxApi) -> list[str]:
    try:
        left = await api.retained_of(scene.subject)
    except BrokerNotFoundError:
        return []  # said by the act; asking for ever would not make this EMQX able to
    return [f"{len(left)} retained messages of it are left"] if left else []


LOOKS: Final[Mapping[Look, Callable[[Scene, EmqxApi], Awaitable[list[str]]]]] = {
    Look.SOURCE: _source,
    Look.SUPERUSER: _superuser,
    Look.RESTRICTED: _restricted,
    Look.RESTORED: _restored,
    Look.QUIET: _quiet,
    Look.OUT: _out,
    Look.UNBANNED: _unbanned,
    Look.NO_RETAINED: _no_retained,
}
