"""EMQX's HTTP API as typed calls: one method for each request that Cordon makes, nothing decided in here."""

import base64
import re
from collections.abc import AsyncIterator, Sequence, Sized
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from controller.adapters.emqx import rows
from controller.adapters.emqx.answers import EmqxConflictError
from controller.adapters.emqx.http import Answer, Call, EmqxHttp, Method, Note
from controller.ports.broker import Ban, Rules
from controller.ports.errors import BrokerAnswerError, BrokerNotFoundError, BrokerRefusedError
from schemas.base import DEVICE_ID_PATTERN

PAGE_ROWS: Final = 1000
MAX_PAGES: Final = 10_000
UNSUBSCRIBE_AT_ONCE: Final = 500  # topics in one request
_SOURCES: Final = "/authorization/sources"
RULES_PATH: Final = f"{_SOURCES}/{rows.DATABASE}/rules"
_RULES: Final = RULES_PATH
_CLIENT_ID: Final = re.compile(DEVICE_ID_PATTERN)

T = TypeVar("T")


def segment(client_id: str) -> str:
    """A client id as a piece of a URL's path.

    Raises:
        BrokerRefusedError: not an id that Cordon acts on. `.` and `..` would climb up the path, and deleting the ban
            of `..` would delete every ban there is; wildcards would make rules for others.
    """
    if _CLIENT_ID.fullmatch(client_id) is None or client_id in {".", ".."}:
        raise BrokerRefusedError("not a client id that Cordon acts on")
    return quote(client_id, safe="")


class EmqxApi:
    """The calls, over one HTTP client; `noting`, `at` and `urgently` give views of the same client.

    Every method raises `BrokerError` and its kinds.
    """

    def __init__(self, http: EmqxHttp, *, note: Note | None = None, node: str = "", urgent: bool = False) -> None:
        """Use the given client; `note` gets a step for each exchange, `node` binds to one address."""
        self._http = http
        self._note = note
        self._node = node
        self._urgent = urgent

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every configured base address."""
        return self._http.addresses

    def noting(self, note: Note) -> "EmqxApi":
        """The same calls, each exchange told to `note`."""
        return EmqxApi(self._http, note=note, node=self._node, urgent=self._urgent)

    def at(self, node: str) -> "EmqxApi":
        """The same calls, to one address only, each tried once."""
        return EmqxApi(self._http, note=self._note, node=node, urgent=self._urgent)

    def urgently(self) -> "EmqxApi":
        """The same calls, before all that are not urgent."""
        return EmqxApi(self._http, note=self._note, node=self._node, urgent=True)

    # The cluster

    async def nodes(self) -> tuple[rows.NodeRow, ...]:
        """The members of the cluster, as the asked node sees them."""
        return _read(tuple[rows.NodeRow, ...], await self._call("GET", "/nodes", "read nodes"))

    async def own_name(self) -> str:
        """The name of the node that answers."""
        return _read(rows.ClusterRow, await self._call("GET", "/cluster", "read cluster")).self

    # Clients

    async def client(self, client_id: str) -> rows.ClientRow | None:
        """The client's session, `None` if there is none."""
        answer = await self._maybe("GET", f"/clients/{segment(client_id)}", "read client")
        return None if answer is None else _read(rows.ClientRow, answer)

    async def subscriptions(self, client_id: str) -> tuple[str, ...]:
        """The filters that the client's session holds; none if there is no session."""
        answer = await self._maybe("GET", f"/clients/{segment(client_id)}/subscriptions", "read subscriptions")
        if answer is None:
            return ()
        return tuple(row.topic for row in _read(tuple[rows.SubscriptionRow, ...], answer))

    async def unsubscribe(self, client_id: str, topics: Sequence[str]) -> None:
        """End subscriptions of the client's session, connected or away."""
        path = f"/clients/{segment(client_id)}/unsubscribe/bulk"
        for first in range(0, len(topics), UNSUBSCRIBE_AT_ONCE):
            body = [{"topic": topic} for topic in topics[first : first + UNSUBSCRIBE_AT_ONCE]]
            await self._maybe("POST", path, "cut subscriptions", body=body)

    async def kick(self, client_id: str) -> bool:
        """Disconnect the client and destroy its session; whether there was one."""
        return await self._maybe("DELETE", f"/clients/{segment(client_id)}", "kick") is not None

    async def cache(self, client_id: str) -> tuple[rows.CacheRow, ...]:
        """The access decisions that the client's connection remembers."""
        answer = await self._maybe("GET", f"/clients/{segment(client_id)}/authorization/cache", "read cache")
        return () if answer is None else _read(tuple[rows.CacheRow, ...], answer)

    async def clear_cache(self, client_id: str) -> bool:
        """Make the client's connection forget its access decisions; whether there was a client."""
        path = f"/clients/{segment(client_id)}/authorization/cache"
        return await self._maybe("DELETE", path, "clear cache") is not None

    async def clear_all_caches(self) -> None:
        """Make every connection forget its access decisions."""
        await self._call("DELETE", "/authorization/cache", "clear all caches")

    # Bans

    async def bans(self) -> AsyncIterator[Ban]:
        """Every ban, page by page."""
        async for row in self._listing(rows.BanRow, "/banned", "list bans"):
            yield row.ban()

    async def ban_of(self, client_id: str) -> Ban | None:
        """The client id's own row, expired or not; EMQX before 5.8.1 knows no filter and lists everything."""
        segment(client_id)
        async for row in self._listing(rows.BanRow, "/banned", "read ban", clientid=client_id):
            if row.kind == "clientid" and row.who == client_id:
                return row.ban()
        return None

    async def add_ban(self, client_id: str, *, by: str, reason: str, until: float | None) -> tuple[Ban, bool]:
        """Ban the client id: the row that is there now, and whether this call made it.

        EMQX cuts the client's connection itself. A row that was there stays as it is: there is no update.
        """
        segment(client_id)
        body = {"as": "clientid", "who": client_id, "by": by, "reason": reason, "until": rows.until_text(until)}
        try:
            answer = await self._call("POST", "/banned", "ban", body=body)
        except EmqxConflictError as e:
            return rows.old_ban(e.message), False
        return _read(rows.BanRow, answer).ban(), True

    async def lift_ban(self, client_id: str) -> bool:
        """Remove the client id's row, whoever made it; whether there was one."""
        return await self._maybe("DELETE", f"/banned/clientid/{segment(client_id)}", "lift ban") is not None

    # Rules

    async def rules(self, client_id: str) -> Rules:
        """The client's own rules; none if it has none."""
        return await self.rules_or_none(client_id) or ()

    async def rules_or_none(self, client_id: str) -> Rules | None:
        """The client's own rules; `None` if there is no row, which an empty one is not."""
        answer = await self._maybe("GET", f"{_RULES}/clients/{segment(client_id)}", "read rules")
        return None if answer is None else rows.rules_of(_read(rows.ClientRulesRow, answer))

    async def write_rules(self, client_id: str, rules: Rules) -> None:
        """Make these the client's own rules, whatever it had."""
        body = {"clientid": client_id, "rules": [rows.rule_body(rule) for rule in rules]}
        await self._call("PUT", f"{_RULES}/clients/{segment(client_id)}", "write rules", body=body)

    async def delete_rules(self, client_id: str) -> bool:
        """Leave the client no rules of its own; whether it had any."""
        return await self._maybe("DELETE", f"{_RULES}/clients/{segment(client_id)}", "delete rules") is not None

    async def client_rules(self) -> AsyncIterator[tuple[str, Rules]]:
        """Every client that has rules of its own, page by page."""
        async for row in self._listing(rows.ClientRulesRow, f"{_RULES}/clients", "list rules"):
            yield row.clientid, rows.rules_of(row)

    async def has_user_rules(self) -> bool:
        """Whether any user name has rules."""
        answer = await self._call("GET", f"{_RULES}/users", "list rules", query={"page": 1, "limit": 1})
        return bool(_read(rows.Page[rows.RulesRow], answer).data)

    async def all_rules(self) -> Rules:
        """The rules for everybody."""
        answer = await self._maybe("GET", f"{_RULES}/all", "read rules for all")
        return () if answer is None else rows.rules_of(_read(rows.RulesRow, answer))

    async def write_all_rules(self, rules: Rules) -> None:
        """Make these the rules for everybody."""
        body = {"rules": [rows.rule_body(rule) for rule in rules]}
        await self._call("POST", f"{_RULES}/all", "write rules for all", body=body)

    async def delete_all_rules(self) -> None:
        """Leave no rules for everybody."""
        await self._maybe("DELETE", f"{_RULES}/all", "delete rules for all")

    # Settings

    async def sources(self) -> tuple[rows.SourceRow, ...]:
        """Whom EMQX asks for access, in order."""
        return _read(rows.SourcesRow, await self._call("GET", _SOURCES, "read sources")).sources

    async def create_database(self) -> None:
        """Add the built-in database as the first source."""
        body = {"type": rows.DATABASE, "enable": True}
        await self._call("POST", _SOURCES, "add source", body=body, repeat=False)

    async def write_source(self, source: rows.SourceRow) -> None:
        """Write a source's settings."""
        body = source.model_dump(mode="json")
        await self._call("PUT", f"{_SOURCES}/{quote(source.type, safe='')}", "write source", body=body)

    async def move_source(self, kind: str, position: str) -> None:
        """Change when a source is asked: `front`, `rear`, `before:x`, `after:x`."""
        path = f"{_SOURCES}/{quote(kind, safe='')}/move"
        await self._call("POST", path, "move source", body={"position": position})

    async def delete_source(self, kind: str) -> None:
        """Remove a source, and with the built-in database every rule in it."""
        await self._maybe("DELETE", f"{_SOURCES}/{quote(kind, safe='')}", "delete source")

    async def authenticators(self) -> tuple[rows.AuthenticatorRow, ...]:
        """The authentication chain; empty lets everybody in."""
        answer = await self._call("GET", "/authentication", "read authentication")
        return _read(tuple[rows.AuthenticatorRow, ...], answer)

    async def is_superuser(self, authenticator_id: str, user_id: str) -> bool:
        """Whether a built-in user passes every access rule; a user that is not there does not."""
        if user_id in {"", ".", ".."}:
            return False
        path = f"/authentication/{quote(authenticator_id, safe='')}/users/{quote(user_id, safe='')}"
        answer = await self._maybe("GET", path, "read user")
        return answer is not None and _read(rows.UserRow, answer).is_superuser

    async def listeners(self) -> tuple[rows.ListenerRow, ...]:
        """Every listener, without its TLS settings."""
        return _read(tuple[rows.ListenerRow, ...], await self._call("GET", "/listeners", "read listeners"))

    async def listener(self, listener_id: str) -> rows.ListenerRow | None:
        """One listener with its TLS settings."""
        answer = await self._maybe("GET", f"/listeners/{quote(listener_id, safe='')}", "read listener")
        return None if answer is None else _read(rows.ListenerRow, answer)

    async def zone(self) -> rows.ZoneRow:
        """The global zone."""
        return _read(rows.ZoneRow, await self._call("GET", "/configs/global_zone", "read zone"))

    # Messages

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Publish over HTTP, past every access rule; whether anybody was subscribed. Never repeated."""
        encoded = base64.b64encode(payload).decode()
        body = {"topic": topic, "payload": encoded, "payload_encoding": "base64", "qos": qos, "retain": retain}
        answer = await self._call("POST", "/publish", "publish", body=body, repeat=False)
        return answer.status == 200

    # How a call is made

    async def ask(
        self,
        method: Method,
        path: str,
        what: str,
        *,
        query: dict[str, str | int] | None = None,
        body: object = None,
        repeat: bool = True,
    ) -> Answer:
        """Any call, for the parts of the API that only one module needs."""
        return await self._call(method, path, what, query=query, body=body, repeat=repeat)

    async def pages(self, path: str, what: str, size: int) -> AsyncIterator[list[Any]]:
        """The pages of a listing as plain JSON, for those who take only some rows apart."""
        for page in range(1, MAX_PAGES + 1):
            answer = await self._call("GET", path, what, query={"page": page, "limit": size})
            content = _read(rows.Page[Any], answer)
            yield list(content.data)
            if _is_last(content.data, content.meta, page, size):
                return
        raise BrokerAnswerError(f"{path}: more than {MAX_PAGES} pages")

    async def count(self, path: str) -> int | None:
        """How many rows a listing has, where it tells."""
        answer = await self._call("GET", path, "count rows", query={"page": 1, "limit": 1})
        return _read(rows.Page[Any], answer).meta.count

    async def _call(
        self,
        method: Method,
        path: str,
        what: str,
        *,
        query: dict[str, str | int] | None = None,
        body: object = None,
        repeat: bool = True,
    ) -> Answer:
        call = Call(
            method=method,
            path=path,
            what=what,
            query=query,
            body=body,
            repeat=repeat,
            node=self._node,
            urgent=self._urgent,
        )
        return await self._http.call(call, self._note)

    async def _maybe(self, method: Method, path: str, what: str, *, body: object = None) -> Answer | None:
        """The same where "not there" is an answer."""
        try:
            return await self._call(method, path, what, body=body)
        except BrokerNotFoundError:
            return None

    async def _listing(self, model: type[T], path: str, what: str, **filters: str) -> AsyncIterator[T]:
        for page in range(1, MAX_PAGES + 1):
            query: dict[str, str | int] = {"page": page, "limit": PAGE_ROWS, **filters}
            answer = await self._call("GET", path, what, query=query)
            content = _read(rows.Page[model], answer)  # type: ignore[valid-type]  # a model chosen at run time
            for row in content.data:
                yield row
            if _is_last(content.data, content.meta, page, PAGE_ROWS):
                return
        raise BrokerAnswerError(f"{path}: more than {MAX_PAGES} pages")


def _is_last(data: Sized, meta: rows.Meta, page: int, size: int) -> bool:
    if not data:
        return True
    if meta.hasnext is not None:
        return not meta.hasnext
    return meta.count is not None and page * size >= meta.count


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)  # building one costs more than using it


def _read(model: type[T], answer: Answer) -> T:
    try:
        chosen: Any = model  # a generic type does not count as hashable
        content: T = _adapter(chosen).validate_python(answer.data)
    except ValidationError as e:
        raise BrokerAnswerError(f"{answer.node}: an answer of the wrong shape: {rows.faults(e)}") from e
    return content
