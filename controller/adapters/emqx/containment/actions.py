"""Each act of a plan as calls to EMQX: one function each, safe to repeat."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from controller.adapters.emqx.client.models import SubscriptionRow
from controller.adapters.emqx.client.requests import BanKind
from controller.adapters.emqx.containment.checks import outside
from controller.adapters.emqx.containment.context import RunContext
from controller.domain.containment.plan import ContainmentAction
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import Ban, restriction
from controller.ports.errors import BrokerNotFoundError
from schemas.base import MAX_NAME, clean_text

END_SLACK: Final = 1.0  # seconds by which a row's end may differ from what was asked: it tells whole ones


async def put_ban(scene: RunContext, kind: BanKind) -> None:
    """Ban the subject; a row that is there already stays, and says whether it is of an earlier decision."""
    wish = scene.wish
    ban, made = await scene.api.add_ban(scene.subject, by=wish.by, reason=wish.reason, until=wish.until, kind=kind)
    now = scene.clock.now()
    # A row tells whole seconds, cut off: one more is never earlier than the cut was.
    scene.record.cut_at = now if made else min(ban.at + 1, now)
    scene.record.ban_until = ban.until
    if not made:
        scene.record.say("ban there already", _whose(ban))
        scene.found.ban_is_outdated = _is_outdated(ban, wish.by, wish.until)


async def renew_ban(scene: RunContext, kind: BanKind) -> None:
    """Put this decision's ban in the place of an older one of Cordon's; EMQX has no update."""
    if not scene.found.ban_is_outdated:
        return
    wish = scene.wish
    scene.record.say("ban is of an earlier decision", "replaced by this one's")
    await scene.api.lift_ban(scene.subject, kind)
    ban, _ = await scene.api.add_ban(scene.subject, by=wish.by, reason=wish.reason, until=wish.until, kind=kind)
    scene.record.ban_until = ban.until


async def lift_own_ban(scene: RunContext, kind: BanKind) -> None:
    """Lift Cordon's ban; one that somebody else made is never touched."""
    ban = await scene.api.ban_of(scene.subject, kind)
    if ban is None:
        return
    if not ban.is_ours:
        scene.record.say("foreign ban left", f"made by {clean_text(ban.by, MAX_NAME)}")
        return
    await scene.api.lift_ban(scene.subject, kind)


async def _write_restriction(scene: RunContext) -> None:
    """Give the client the restriction's rules, once those it had are kept."""
    wanted = restriction(scene.subject)
    row = await scene.api.rules_or_none(scene.subject)
    had = row or ()
    if had == wanted:
        return
    await scene.wish.keep_rules(had)
    scene.record.say("keep rules", f"{len(had)} rules kept")
    if row is None:
        await scene.shared.rules.write(scene.subject, wanted, scene.record)
    else:
        await scene.api.write_rules(scene.subject, wanted)


async def _restore_restriction(scene: RunContext) -> None:
    """Writing before a ban is lifted: between the two the client would be free."""
    wanted = restriction(scene.subject)
    had = await scene.api.rules(scene.subject)
    if had != wanted:
        # What was kept before for the case stays; where nothing was, the isolation was never carried out.
        await scene.wish.keep_rules(had)
        scene.record.say("restriction was gone", f"{len(had)} rules kept, unless others were before, and replaced")
        await scene.api.write_rules(scene.subject, wanted)


async def _restore_rules(scene: RunContext) -> None:
    """Restore what was kept; rules that are not the restriction's any more were changed by someone else and stay."""
    found, kept = scene.found, scene.wish.kept_rules
    had = await scene.api.rules(scene.subject)
    found.restored = kept
    if had == kept:
        found.gave_rules_back = True
        return
    if had != restriction(scene.subject):
        scene.record.say("rules left", f"{len(had)} rules are someone else's and stay")
        found.restored = had
        return
    found.gave_rules_back = True
    if kept:
        await scene.api.write_rules(scene.subject, kept)
    else:
        await scene.api.delete_rules(scene.subject)


async def _clear_cache(scene: RunContext) -> None:
    await scene.api.clear_cache(scene.subject)


async def _cut_subscriptions(scene: RunContext) -> None:
    """End what it listens to outside its branch, once that is kept."""
    held = await scene.api.subscription_rows(scene.subject)
    cut = set(outside(scene.subject, tuple(row.topic for row in held)))
    if cut:
        client = await scene.api.client(scene.subject)
        session = "" if client is None else client.created_at
        await scene.wish.keep_subscriptions(tuple(_kept(row, session) for row in held if row.topic in cut))
        await scene.api.unsubscribe(scene.subject, sorted(cut))
    scene.record.cut_at = scene.clock.now()


def _kept(row: SubscriptionRow, session: str) -> SavedSubscription:
    return SavedSubscription(row.topic, row.qos, row.nl, row.rap, row.rh, session)


async def _restore_subscriptions(scene: RunContext) -> None:
    """Give the same session back what Cordon cut; a later one asks for itself, and other rules may forbid it."""
    kept = scene.wish.kept_subscriptions
    if not kept:
        return
    if not scene.found.gave_rules_back:
        scene.record.say("subscriptions not given back", "its rules are someone else's now")
        return
    client = await scene.api.client(scene.subject)
    mine = [one for one in kept if client is not None and one.session and one.session == client.created_at]
    if not mine:
        scene.record.say("subscriptions not given back", "the session they belonged to is gone")
        return
    have = set(await scene.api.subscriptions(scene.subject))
    missing = [one for one in mine if one.topic not in have]
    await scene.api.subscribe(scene.subject, missing)
    scene.record.say("subscriptions given back", f"{len(missing)} of {len(kept)} that were cut")


async def _kick(scene: RunContext) -> None:
    """Disconnect who is there or came back, and destroy a session that waits with old subscriptions."""
    client = await scene.api.client(scene.subject)
    kicked = await scene.api.kick(scene.subject)
    if kicked and client is not None and client.connected:
        scene.record.cut_at = scene.clock.now()


async def _clear_retained(scene: RunContext) -> None:
    try:
        topics = await scene.api.retained_of(scene.subject)
    except BrokerNotFoundError:
        scene.record.say("retained messages not cleared", "this EMQX cannot list them")
        return
    for topic in topics:
        await scene.api.delete_retained(topic)


def _is_outdated(ban: Ban, by: str, until: float | None) -> bool:
    """Whether a ban of Cordon's is left from an earlier decision: it would end at that one's time."""
    if not ban.is_ours:
        return False
    if ban.by != by or ban.until is None or until is None:
        return ban.by != by or ban.until != until
    return abs(ban.until - until) > END_SLACK


def _whose(ban: Ban) -> str:
    return f"Cordon's own, by {ban.by}" if ban.is_ours else f"made by {clean_text(ban.by, MAX_NAME)}, left as it is"


ACTS: Final[Mapping[ContainmentAction, Callable[[RunContext], Awaitable[None]]]] = {
    ContainmentAction.BAN: partial(put_ban, kind="clientid"),
    ContainmentAction.RENEW_BAN: partial(renew_ban, kind="clientid"),
    ContainmentAction.LIFT_BAN: partial(lift_own_ban, kind="clientid"),
    ContainmentAction.WRITE_RESTRICTION: _write_restriction,
    ContainmentAction.RESTORE_RESTRICTION: _restore_restriction,
    ContainmentAction.RESTORE_RULES: _restore_rules,
    ContainmentAction.CLEAR_CACHE: _clear_cache,
    ContainmentAction.CUT_SUBSCRIPTIONS: _cut_subscriptions,
    ContainmentAction.RESTORE_SUBSCRIPTIONS: _restore_subscriptions,
    ContainmentAction.KICK: _kick,
    ContainmentAction.CLEAR_RETAINED: _clear_retained,
}
