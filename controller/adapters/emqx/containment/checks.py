"""Each look of a plan: what is read at a node, and what is missing there."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import DATABASE, CacheRow, SourceRow
from controller.adapters.emqx.containment.context import RunContext
from controller.domain.containment.plan import ContainmentCheck
from controller.ports.broker_tables import Ban, restriction
from controller.ports.errors import BrokerNotFoundError
from schemas import topics

_SHARED: Final = ("$share/", "$queue/", "$exclusive/")


def outside(client_id: str, filters: tuple[str, ...]) -> tuple[str, ...]:
    """Those subscriptions that a restricted client may not hold."""
    own = topics.down_branch(client_id).removesuffix("#")
    return tuple(each for each in filters if not _real(each).startswith(own))


def wrongly_allowed(client_id: str, cache: tuple[CacheRow, ...]) -> tuple[str, ...]:
    """Topics outside its branch that the client's connection still remembers as allowed."""
    own = {
        "publish": topics.up_branch(client_id).removesuffix("#"),
        "subscribe": topics.down_branch(client_id).removesuffix("#"),
    }
    return tuple(
        row.topic
        for row in cache
        if row.result != "deny" and not _is_own(_real(row.topic), own.get(row.access.action_type))
    )


def consulted(sources: tuple[SourceRow, ...]) -> str:
    """Empty if EMQX asks its built-in database before all others, else what is wrong: rules nobody asks do nothing."""
    asked = [source.type for source in sources if source.enable]
    if not asked or DATABASE not in asked:
        return "EMQX does not ask its built-in database for access: rules have no effect"
    if asked[0] != DATABASE:
        return f"EMQX asks {asked[0]} before its built-in database: rules may have no effect"
    return ""


def _is_own(topic: str, branch: str | None) -> bool:
    return branch is not None and topic.startswith(branch)


def _real(topic: str) -> str:
    """The topic behind a shared or exclusive subscription."""
    if topic.startswith(_SHARED[0]):
        return topic.split("/", 2)[-1]
    for prefix in _SHARED[1:]:
        if topic.startswith(prefix):
            return topic.removeprefix(prefix)
    return topic


# Under what the read-back stands in the proof.
LABELS: Final[Mapping[ContainmentCheck, str]] = {
    ContainmentCheck.SOURCE: "order of sources read",
    ContainmentCheck.SUPERUSER: "superuser read",
    ContainmentCheck.RESTRICTED: "rules read back",
    ContainmentCheck.RESTORED: "rules read back",
    ContainmentCheck.QUIET: "subscriptions and cache read back",
    ContainmentCheck.OUT: "ban and client read back",
    ContainmentCheck.UNBANNED: "ban read back",
    ContainmentCheck.NO_RETAINED: "retained messages read back",
}


def in_force(ban: Ban | None, now: float) -> bool:
    """Whether a row still bans: EMQX lists expired rows for up to a minute."""
    return ban is not None and (ban.until is None or ban.until > now)


async def _source(scene: RunContext, _api: EmqxApi) -> list[str]:
    trouble = consulted(await scene.shared.sources.get())
    scene.record.say(LABELS[ContainmentCheck.SOURCE], trouble or "as wanted")
    return [trouble] if trouble else []


async def _superuser(scene: RunContext, api: EmqxApi) -> list[str]:
    """A superuser passes every rule: it can be isolated, but a restriction of it would be pretended."""
    client = await scene.shared.clients_at[api.node].get(scene.subject, scene.record)
    if client is None:
        return []
    for link in await scene.shared.authenticators.get():
        user = scene.subject if link.user_id_type == "clientid" else client.username
        if link.enable and link.backend == DATABASE and await api.is_superuser(link.id, user or ""):
            return ["the client's user is a superuser at EMQX: access rules do not bind it"]
    return []


async def _restricted(scene: RunContext, api: EmqxApi) -> list[str]:
    wanted = restriction(scene.subject)
    return [] if await api.rules(scene.subject) == wanted else ["the rules are not the restriction's"]


async def _restored(scene: RunContext, api: EmqxApi) -> list[str]:
    wanted = scene.found.restored
    return [] if await api.rules(scene.subject) == wanted else ["the rules are not those that were restored"]


async def _quiet(scene: RunContext, api: EmqxApi) -> list[str]:
    missing = []
    if outside(scene.subject, await api.subscriptions(scene.subject)):
        missing.append("subscriptions outside its branch")
    if wrongly_allowed(scene.subject, await api.cache(scene.subject)):
        missing.append("its cache allows topics outside its branch")
    return missing


async def _out(scene: RunContext, api: EmqxApi) -> list[str]:
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


async def _unbanned(scene: RunContext, api: EmqxApi) -> list[str]:
    ban = await api.ban_of(scene.subject)
    ours = ban is not None and ban.is_ours and in_force(ban, scene.clock.now())
    return ["Cordon's ban is still there"] if ours else []


async def _no_retained(scene: RunContext, api: EmqxApi) -> list[str]:
    try:
        left = await api.retained_of(scene.subject)
    except BrokerNotFoundError:
        return []  # said by the act; asking for ever would not make this EMQX able to
    return [f"{len(left)} retained messages of it are left"] if left else []


LOOKS: Final[Mapping[ContainmentCheck, Callable[[RunContext, EmqxApi], Awaitable[list[str]]]]] = {
    ContainmentCheck.SOURCE: _source,
    ContainmentCheck.SUPERUSER: _superuser,
    ContainmentCheck.RESTRICTED: _restricted,
    ContainmentCheck.RESTORED: _restored,
    ContainmentCheck.QUIET: _quiet,
    ContainmentCheck.OUT: _out,
    ContainmentCheck.UNBANNED: _unbanned,
    ContainmentCheck.NO_RETAINED: _no_retained,
}
