"""The typed calls on one client or user: session, subscriptions, cache, bans, rules, retained messages."""

from collections.abc import AsyncIterator, Callable, Sequence, Sized
from dataclasses import replace
from functools import cache
from typing import Any, Final, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from controller.adapters.emqx.client import models, requests
from controller.adapters.emqx.client.http import ApiRequest, ApiResponse, EmqxHttpClient, HttpMethod, StepListener
from controller.adapters.emqx.client.requests import BanKind
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import AccessRules, Ban
from controller.ports.errors import BrokerAnswerError, BrokerNotFoundError

PAGE_ROWS: Final = 1000
MAX_PAGES: Final = 10_000

T = TypeVar("T")


class RequestSender:
    """Calls over one HTTP client; `noting`, `at` and `urgently` give views of the same client.

    Every method that asks EMQX raises `BrokerError` and its kinds.
    """

    def __init__(
        self, http: EmqxHttpClient, *, note: StepListener | None = None, node: str = "", urgent: bool = False
    ) -> None:
        """Use the given client; `note` gets a step for each exchange, `node` binds to one address."""
        self._http = http
        self._note = note
        self._node = node
        self._urgent = urgent

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every configured base address."""
        return self._http.addresses

    @property
    def node(self) -> str:
        """The address that this view is bound to, empty for any."""
        return self._node

    def noting(self, note: StepListener) -> Self:
        """The same calls, each exchange told to `note`."""
        return type(self)(self._http, note=note, node=self._node, urgent=self._urgent)

    def at(self, node: str) -> Self:
        """The same calls, to one address only, each tried once."""
        return type(self)(self._http, note=self._note, node=node, urgent=self._urgent)

    def urgently(self) -> Self:
        """The same calls, before all that are not urgent."""
        return type(self)(self._http, note=self._note, node=self._node, urgent=True)

    async def send(self, call: ApiRequest) -> ApiResponse:
        """Make a call as this view makes them."""
        return await self._http.call(replace(call, node=self._node, urgent=self._urgent), self._note)

    async def maybe(self, call: ApiRequest) -> ApiResponse | None:
        """The same where "not there" is an answer."""
        try:
            return await self.send(call)
        except BrokerNotFoundError:
            return None

    async def listing(self, model: type[T], page_call: Callable[[int], ApiRequest]) -> AsyncIterator[T]:
        """Every row of a listing whose pages have `PAGE_ROWS` rows.

        Raises:
            BrokerAnswerError: a listing that does not end.
        """
        for page in range(1, MAX_PAGES + 1):
            call = page_call(page)
            content = read(models.ListingPage[model], await self.send(call))  # type: ignore[valid-type]  # chosen at run time
            for row in content.data:
                yield row
            if is_last(content.data, content.meta, page, PAGE_ROWS):
                return
        raise BrokerAnswerError(f"{call.path}: more than {MAX_PAGES} pages")

    async def _call(
        self,
        method: HttpMethod,
        path: str,
        what: str,
        *,
        query: dict[str, str | int] | None = None,
        body: object = None,
        repeat: bool = True,
    ) -> ApiResponse:
        return await self.send(ApiRequest(method, path, what, query=query, body=body, repeat=repeat))

    async def _maybe(self, method: HttpMethod, path: str, what: str, *, body: object = None) -> ApiResponse | None:
        return await self.maybe(ApiRequest(method, path, what, body=body))

    def _listing(self, model: type[T], path: str, what: str, **filters: str) -> AsyncIterator[T]:
        return self.listing(
            model, lambda page: ApiRequest("GET", path, what, query={"page": page, "limit": PAGE_ROWS, **filters})
        )


def is_last(data: Sized, meta: models.PageMeta, page: int, size: int) -> bool:
    """Whether a page of `size` rows is the last one of its listing."""
    if not data:
        return True
    if meta.hasnext is not None:
        return not meta.hasnext
    return meta.count is not None and page * size >= meta.count


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)  # building one costs more than using it


def read(model: type[T], answer: ApiResponse) -> T:
    """The answer's rows, validated.

    Raises:
        BrokerAnswerError: of the wrong shape.
    """
    try:
        chosen: Any = model  # a generic type does not count as hashable
        content: T = _adapter(chosen).validate_python(answer.data)
    except ValidationError as e:
        raise BrokerAnswerError(f"{answer.node}: an answer of the wrong shape: {models.faults(e)}") from e
    return content


UNSUBSCRIBE_AT_ONCE: Final = 500  # topics in one request


class SubjectApi(RequestSender):
    """What containment is made of."""

    # Sessions

    async def client(self, client_id: str) -> models.ClientRow | None:
        """The client's session, `None` if there is none."""
        answer = await self.maybe(requests.read_client(client_id))
        return None if answer is None else read(models.ClientRow, answer)

    async def clients(self, client_ids: Sequence[str]) -> tuple[models.ClientRow, ...]:
        """The sessions of several clients, in one call."""
        return read(models.ListingPage[models.ClientRow], await self.send(requests.read_clients(client_ids))).data

    async def sessions_of(self, username: str) -> tuple[models.ClientRow, ...]:
        """Every session of a user, connected or away, whichever node it is on."""
        requests.user_segment(username)
        listing = self.listing(models.ClientRow, lambda page: requests.list_sessions(username, page))
        # An EMQX that does not know the filter would list everybody.
        return tuple([row async for row in listing if row.username == username])

    async def subscription_rows(self, client_id: str) -> tuple[models.SubscriptionRow, ...]:
        """What the client's session listens to; nothing if there is no session."""
        answer = await self.maybe(requests.read_subscriptions(client_id))
        return () if answer is None else read(tuple[models.SubscriptionRow, ...], answer)

    async def subscriptions(self, client_id: str) -> tuple[str, ...]:
        """The filters that the client's session holds; none if there is no session."""
        return tuple(row.topic for row in await self.subscription_rows(client_id))

    async def unsubscribe(self, client_id: str, topics: Sequence[str]) -> None:
        """End subscriptions of the client's session, connected or away."""
        for first in range(0, len(topics), UNSUBSCRIBE_AT_ONCE):
            await self.maybe(requests.unsubscribe(client_id, topics[first : first + UNSUBSCRIBE_AT_ONCE]))

    async def subscribe(self, client_id: str, kept: Sequence[SavedSubscription]) -> None:
        """Make subscriptions for the client's session; rules are not asked."""
        for first in range(0, len(kept), UNSUBSCRIBE_AT_ONCE):
            await self.maybe(requests.subscribe(client_id, kept[first : first + UNSUBSCRIBE_AT_ONCE]))

    async def kick(self, client_id: str) -> bool:
        """Disconnect the client and destroy its session; whether there was one."""
        return await self.maybe(requests.kick(client_id)) is not None

    async def kick_many(self, client_ids: Sequence[str]) -> None:
        """The same for many; EMQX does not tell which of them were there."""
        await self.send(requests.kick_many(client_ids))

    async def cache(self, client_id: str) -> tuple[models.CacheRow, ...]:
        """The access decisions that the client's connection remembers."""
        answer = await self.maybe(requests.read_cache(client_id))
        return () if answer is None else read(tuple[models.CacheRow, ...], answer)

    async def clear_cache(self, client_id: str) -> bool:
        """Make the client's connection forget its access decisions; whether there was a client."""
        return await self.maybe(requests.clear_cache(client_id)) is not None

    # Bans

    async def ban_of(self, subject: str, kind: BanKind = "clientid") -> Ban | None:
        """The subject's own row, expired or not."""
        async for row in self.listing(models.BanRow, lambda page: requests.read_ban(kind, subject, page)):
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
            answer = await self.send(requests.add_ban(kind, subject, by=by, reason=reason, until=until))
        except EmqxConflictError as e:
            return models.old_ban(e.message), False
        return read(models.BanRow, answer).ban(), True

    async def lift_ban(self, subject: str, kind: BanKind = "clientid") -> bool:
        """Remove the subject's row, whoever made it; whether there was one."""
        return await self.maybe(requests.lift_ban(kind, subject)) is not None

    # Rules

    async def rules(self, client_id: str) -> AccessRules:
        """The client's own rules; none if it has none."""
        return await self.rules_or_none(client_id) or ()

    async def rules_or_none(self, client_id: str) -> AccessRules | None:
        """The client's own rules; `None` if there is no row, which an empty one is not."""
        answer = await self.maybe(requests.read_rules("clients", client_id))
        return None if answer is None else models.rules_of(read(models.ClientRulesRow, answer))

    async def write_rules(self, client_id: str, rules: AccessRules) -> None:
        """Make these the client's own rules, whatever it had."""
        await self.send(requests.write_rules("clients", client_id, rules))

    async def add_rules(self, wanted: Sequence[tuple[str, AccessRules]]) -> None:
        """Give several clients their rules in one call.

        Raises:
            EmqxConflictError: one of them has some already; none was written.
        """
        await self.send(requests.add_rules(wanted))

    async def delete_rules(self, client_id: str) -> bool:
        """Leave the client no rules of its own; whether it had any."""
        return await self.maybe(requests.delete_rules("clients", client_id)) is not None

    async def user_rules(self, username: str) -> AccessRules:
        """The user's rules, which are asked after a client's own."""
        answer = await self.maybe(requests.read_rules("users", username))
        return () if answer is None else models.rules_of(read(models.UserRulesRow, answer))

    async def write_user_rules(self, username: str, rules: AccessRules) -> None:
        """Make these the user's rules, whatever it had."""
        await self.send(requests.write_rules("users", username, rules))

    async def delete_user_rules(self, username: str) -> bool:
        """Leave the user no rules; whether it had any."""
        return await self.maybe(requests.delete_rules("users", username)) is not None

    # Retained messages

    async def retained_of(self, client_id: str) -> tuple[str, ...]:
        """Topics of the retained messages that the client published.

        Raises:
            BrokerNotFoundError: this EMQX has no such listing.
        """
        requests.segment(client_id)
        listing: AsyncIterator[models.RetainedRow] = self.listing(models.RetainedRow, requests.list_retained)
        return tuple([row.topic async for row in listing if row.from_clientid == client_id])

    async def delete_retained(self, topic: str) -> bool:
        """Delete one retained message; whether there was one."""
        return await self.maybe(requests.delete_retained(topic)) is not None
