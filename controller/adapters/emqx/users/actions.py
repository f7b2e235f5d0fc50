"""The acts and looks of a plan where the subject is a user: its row, its rules, and every session it has."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import DATABASE, ClientRow
from controller.adapters.emqx.client.requests import segment
from controller.adapters.emqx.containment.actions import lift_own_ban, put_ban, renew_ban
from controller.adapters.emqx.containment.checks import LOOKS, in_force, outside, wrongly_allowed
from controller.adapters.emqx.containment.context import RunContext
from controller.adapters.emqx.containment.runner import PlanStepHandlers
from controller.domain.containment.plan import ContainmentAction, ContainmentCheck
from controller.ports.broker_tables import AccessRules, restriction
from controller.ports.errors import BrokerRefusedError

KICK_AT_ONCE: Final = 1000  # sessions in one request
SESSIONS_AT_ONCE: Final = 16  # sessions worked on side by side; the HTTP client bounds the calls of everybody
NAMED: Final = 5  # sessions named in a sentence
# A session may do with its own branch what every restricted device may; the broker fills the client id in.
USER_RESTRICTION: Final[AccessRules] = restriction("${clientid}")


async def _kick(scene: RunContext) -> None:
    """End every session of the user, connected or away."""
    sessions = await scene.api.sessions_of(scene.subject)
    ids = [each.clientid for each in sessions]
    for first in range(0, len(ids), KICK_AT_ONCE):
        await scene.api.kick_many(ids[first : first + KICK_AT_ONCE])
    scene.record.say("sessions of the user", _named(ids) or "none")
    if any(each.connected for each in sessions) or not scene.record.cut_at:
        scene.record.cut_at = scene.clock.now()


async def _write_restriction(scene: RunContext) -> None:
    had = await scene.api.user_rules(scene.subject)
    if had == USER_RESTRICTION:
        return
    await scene.wish.keep_rules(had)
    scene.record.say("keep rules", f"{len(had)} rules kept")
    await scene.api.write_user_rules(scene.subject, USER_RESTRICTION)


async def _restore_restriction(scene: RunContext) -> None:
    had = await scene.api.user_rules(scene.subject)
    if had != USER_RESTRICTION:
        scene.record.say("restriction was gone", f"{len(had)} rules of someone else replaced")
        await scene.api.write_user_rules(scene.subject, USER_RESTRICTION)


async def _restore_rules(scene: RunContext) -> None:
    kept = scene.wish.kept_rules
    had = await scene.api.user_rules(scene.subject)
    scene.found.restored = kept
    if had == kept:
        return
    if had != USER_RESTRICTION:
        scene.record.say("rules left", f"{len(had)} rules are someone else's and stay")
        scene.found.restored = had
    elif kept:
        await scene.api.write_user_rules(scene.subject, kept)
    else:
        await scene.api.delete_user_rules(scene.subject)


async def _clear_cache(scene: RunContext) -> None:
    async def clear(session: ClientRow) -> None:
        if actable(session.clientid):
            await scene.api.clear_cache(session.clientid)

    await each_of(await scene.api.sessions_of(scene.subject), clear)


async def _cut_subscriptions(scene: RunContext) -> None:
    async def cut(session: ClientRow) -> None:
        if not actable(session.clientid):
            return
        held = outside(session.clientid, await scene.api.subscriptions(session.clientid))
        if held:
            await scene.api.unsubscribe(session.clientid, held)

    await each_of(await scene.api.sessions_of(scene.subject), cut)
    scene.record.cut_at = scene.clock.now()


async def _nothing(_scene: RunContext) -> None:
    """For what is not kept for users: their sessions ask for their subscriptions when they connect."""


async def _superuser(scene: RunContext, api: EmqxApi) -> list[str]:
    for link in await scene.shared.authenticators.get():
        named = link.enable and link.backend == DATABASE and link.user_id_type == "username"
        if named and await api.is_superuser(link.id, scene.subject):
            return ["the user is a superuser at EMQX: access rules do not bind it"]
    return []


async def _restricted(scene: RunContext, api: EmqxApi) -> list[str]:
    wanted = await api.user_rules(scene.subject) == USER_RESTRICTION
    return [] if wanted else ["the user's rules are not the restriction's"]


async def _restored(scene: RunContext, api: EmqxApi) -> list[str]:
    wanted = await api.user_rules(scene.subject) == scene.found.restored
    return [] if wanted else ["the user's rules are not those that were restored"]


async def _quiet(scene: RunContext, api: EmqxApi) -> list[str]:
    """Of each session: what it listens to, what it remembers, and rules of its client that go before its user's."""
    missing: list[str] = []

    async def look(session: ClientRow) -> None:
        who = session.clientid
        if not actable(who):
            missing.append("a session whose client id Cordon does not act on: isolate the user")
            return
        if outside(who, await api.subscriptions(who)):
            missing.append(f"{who}: subscriptions outside its branch")
        if wrongly_allowed(who, await api.cache(who)):
            missing.append(f"{who}: its cache allows topics outside its branch")
        own = await api.rules(who)
        if own and own != restriction(who):
            missing.append(f"{who}: has rules of its own, which go before its user's: restrict that client too")

    await each_of(await api.sessions_of(scene.subject), look)
    return missing[:NAMED] + ([f"and {len(missing) - NAMED} more"] if len(missing) > NAMED else [])


async def _out(scene: RunContext, api: EmqxApi) -> list[str]:
    missing = []
    if not in_force(await api.ban_of(scene.subject, "username"), scene.clock.now()):
        missing.append("no ban in force")
    left = [each.clientid for each in await api.sessions_of(scene.subject)]
    if left:
        missing.append(f"sessions of the user are left: {_named(left)}")
    return missing


async def _unbanned(scene: RunContext, api: EmqxApi) -> list[str]:
    ban = await api.ban_of(scene.subject, "username")
    ours = ban is not None and ban.is_ours and in_force(ban, scene.clock.now())
    return ["Cordon's ban is still there"] if ours else []


async def each_of(sessions: Sequence[ClientRow], work: Callable[[ClientRow], Awaitable[None]]) -> None:
    """Work on all sessions, a few side by side.

    Raises:
        BrokerError: one of them could not be worked on; the others of its lot were.
    """
    for first in range(0, len(sessions), SESSIONS_AT_ONCE):
        lot = sessions[first : first + SESSIONS_AT_ONCE]
        for done in await asyncio.gather(*(work(each) for each in lot), return_exceptions=True):
            if isinstance(done, BaseException):
                raise done


def actable(client_id: str) -> bool:
    """Whether Cordon acts on this client id; a user may have others, which only a kick of all reaches."""
    try:
        segment(client_id)
    except BrokerRefusedError:
        return False
    return True


def _named(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:NAMED])
    return f"{shown} and {len(ids) - NAMED} more" if len(ids) > NAMED else shown


_ACTS: Final[Mapping[ContainmentAction, Callable[[RunContext], Awaitable[None]]]] = {
    ContainmentAction.BAN: partial(put_ban, kind="username"),
    ContainmentAction.RENEW_BAN: partial(renew_ban, kind="username"),
    ContainmentAction.LIFT_BAN: partial(lift_own_ban, kind="username"),
    ContainmentAction.WRITE_RESTRICTION: _write_restriction,
    ContainmentAction.RESTORE_RESTRICTION: _restore_restriction,
    ContainmentAction.RESTORE_RULES: _restore_rules,
    ContainmentAction.CLEAR_CACHE: _clear_cache,
    ContainmentAction.CUT_SUBSCRIPTIONS: _cut_subscriptions,
    ContainmentAction.RESTORE_SUBSCRIPTIONS: _nothing,
    ContainmentAction.KICK: _kick,
    ContainmentAction.CLEAR_RETAINED: _nothing,
}
_LOOKS: Final[Mapping[ContainmentCheck, Callable[[RunContext, EmqxApi], Awaitable[list[str]]]]] = {
    ContainmentCheck.SOURCE: LOOKS[ContainmentCheck.SOURCE],
    ContainmentCheck.SUPERUSER: _superuser,
    ContainmentCheck.RESTRICTED: _restricted,
    ContainmentCheck.RESTORED: _restored,
    ContainmentCheck.QUIET: _quiet,
    ContainmentCheck.OUT: _out,
    ContainmentCheck.UNBANNED: _unbanned,
    ContainmentCheck.NO_RETAINED: LOOKS[ContainmentCheck.NO_RETAINED],
}
USER: Final = PlanStepHandlers(_ACTS, _LOOKS, through_one=frozenset({ContainmentCheck.QUIET}))
