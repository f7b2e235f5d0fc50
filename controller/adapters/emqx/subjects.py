"""The typed calls on one client or user: session, subscriptions, cache, bans, rules, retained messages."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from controller.adapters.emqx import calls, rows
from controller.adapters.emqx.answers import EmqxConflictError
from controller.adapters.emqx.calls import BanKind
from controller.adapters.emqx.sending import Sender, read
from controller.ports.broker import Ban, KeptSubscription, Rules

UNSUBSCRIBE_AT_ONCE: Final = 500  # topics in one request


class SubjectCalls(Sender):
    """What containment is made of."""

    # Sessions

    async def client(self, client_id: str) -> rows.ClientRow | None:
        """The client's session, `None` if there is none."""
        answer = await self.maybe(calls.read_client(client_id))
        return None if answer is None else read(rows.ClientRow, answer)

    async def clients(self, client_ids: Sequence[str]) -> tuple[rows.ClientRow, ...]:
        """The sessions of several clients, in one call."""
        return read(rows.Page[rows.ClientRow], await self.send(calls.read_clients(client_ids))).data

    async def sessions_of(self, username: str) -> tuple[rows.ClientRow, ...]:
        """Every session of a user, connected or away, whichever node it is on."""
        calls.user_segment(username)
        listing = self.listing(rows.ClientRow, lambda page: calls.list_sessions(username, page))
        # An EMQX that does not know the filter would list everybody.
        return tuple([row async for row in listing if row.username == username])

    async def subscription_rows(self, client_id: str) -> tuple[rows.SubscriptionRow, ...]:
        """What the client's session listens to; nothing if there is no session."""
        answer = await self.maybe(calls.read_subscriptions(client_id))
        return () if answer is None else read(tuple[rows.SubscriptionRow, ...], answer)

    async def subscriptions(self, client_id: str) -> tuple[str, ...]:
        """The filters that the client's session holds; none if there is no session."""
        return tuple(row.topic for row in await self.subscription_rows(client_id))

    async def unsubscribe(self, client_id: str, topics: Sequence[str]) -> None:
        """End subscriptions of the client's session, connected or away."""
        for first in range(0, len(topics), UNSUBSCRIBE_AT_ONCE):
            await self.maybe(calls.unsubscribe(client_id, topics[first : first + UNSUBSCRIBE_AT_ONCE]))

    async def subscribe(self, client_id: str, kept: Sequence[KeptSubscription]) -> None:
        """Make subscriptions for the client's session; rules are not asked."""
        for first in range(0, len(kept), UNSUBSCRIBE_AT_ONCE):
            await self.maybe(calls.subscribe(client_id, kept[first : first + UNSUBSCRIBE_AT_ONCE]))

    async def kick(self, client_id: str) -> bool:
        """Disconnect the client and destroy its session; whether there was one."""
        return await self.maybe(calls.kick(client_id)) is not None

    async def kick_many(self, client_ids: Sequence[str]) -> None:
        """The same for many; EMQX does not tell which of them were there."""
        await self.send(calls.kick_many(client_ids))

    async def cache(self, client_id: str) -> tuple[rows.CacheRow, ...]:
        """The access decisions that the client's connection remembers."""
        answer = await self.maybe(calls.read_cache(client_id))
        return () if answer is None else read(tuple[rows.CacheRow, ...], answer)

    async def clear_cache(self, client_id: str) -> bool:
        """Make the client's connection forget its access decisions; whether there was a client."""
        return await self.maybe(calls.clear_cache(client_id)) is not None

    # Bans

    async def ban_of(self, subject: str, kind: BanKind = "clientid") -> Ban | None:
        """The subject's own row, expired or not."""
        async for row in self.listing(rows.BanRow, lambda page: calls.read_ban(kind, subject, page)):
            if row.kind == kind and row.who == subject:
                return row.ban()
        return None

    async def add_ban(
        self, subject: str, *, by: str, reason: str, until: float | None, kind: BanKind = "clientid"
    ) -> tuple[Ban, bool]:
        """Ban the subject: the row that is there now, and whether this call made it.

        EMQX cuts a client's connection itself, a user's it leaves. A row that was there stays: there is no update.
        """
        try:
            answer = await self.send(calls.add_ban(kind, subject, by=by, reason=reason, until=until))
        except EmqxConflictError as e:
            return rows.old_ban(e.message), False
        return read(rows.BanRow, answer).ban(), True

    async def lift_ban(self, subject: str, kind: BanKind = "clientid") -> bool:
        """Remove the subject's row, whoever made it; whether there was one."""
        return await self.maybe(calls.lift_ban(kind, subject)) is not None

    # Rules

    async def rules(self, client_id: str) -> Rules:
        """The client's own rules; none if it has none."""
        return await self.rules_or_none(client_id) or ()

    async def rules_or_none(self, client_id: str) -> Rules | None:
        """The client's own rules; `None` if there is no row, which an empty one is not."""
        answer = await self.maybe(calls.read_rules("clients", client_id))
        return None if answer is None else rows.rules_of(read(rows.ClientRulesRow, answer))

    async def write_rules(self, client_id: str, rules: Rules) -> None:
        """Make these the client's own rules, whatever it had."""
        await self.send(calls.write_rules("clients", client_id, rules))

    async def add_rules(self, wanted: Sequence[tuple[str, Rules]]) -> None:
        """Give several clients their rules in one call.

        Raises:
            EmqxConflictError: one of them has some already; none was written.
        """
        await self.send(calls.add_rules(wanted))

    async def delete_rules(self, client_id: str) -> bool:
        """Leave the client no rules of its own; whether it had any."""
        return await self.maybe(calls.delete_rules("clients", client_id)) is not None

    async def user_rules(self, username: str) -> Rules:
        """The user's rules, which are asked after a client's own."""
        answer = await self.maybe(calls.read_rules("users", username))
        return () if answer is None else rows.rules_of(read(rows.UserRulesRow, answer))

    async def write_user_rules(self, username: str, rules: Rules) -> None:
        """Make these the user's rules, whatever it had."""
        await self.send(calls.write_rules("users", username, rules))

    async def delete_user_rules(self, username: str) -> bool:
        """Leave the user no rules; whether it had any."""
        return await self.maybe(calls.delete_rules("users", username)) is not None

    # Retained messages

    async def retained_of(self, client_id: str) -> tuple[str, ...]:
        """Topics of the retained messages that the client published.

        Raises:
            BrokerNotFoundError: this EMQX has no such listing.
        """
        calls.segment(client_id)
        listing: AsyncIterator[rows.RetainedRow] = self.listing(rows.RetainedRow, calls.list_retained)
        return tuple([row.topic async for row in listing if row.from_clientid == client_id])

    async def delete_retained(self, topic: str) -> bool:
        """Delete one retained message; whether there was one."""
        return await self.maybe(calls.delete_retained(topic)) is not None
