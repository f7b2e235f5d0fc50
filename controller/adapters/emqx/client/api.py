"""EMQX's HTTP API as typed calls: one method for each request that Cordon makes, nothing decided in here."""

import base64
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

from controller.adapters.emqx.client import models
from controller.adapters.emqx.client.http import ApiRequest, ApiResponse, HttpMethod
from controller.adapters.emqx.client.requests import RULES as _RULES
from controller.adapters.emqx.client.subject_api import MAX_PAGES, SubjectApi, is_last, read
from controller.ports.broker_tables import AccessRules, Ban
from controller.ports.errors import BrokerAnswerError

_SOURCES: Final = "/authorization/sources"
RULES_PATH: Final = _RULES


class EmqxApi(SubjectApi):
    """All calls; those on one client or user are `SubjectApi`'."""

    # The cluster

    async def nodes(self) -> tuple[models.NodeRow, ...]:
        """The members of the cluster, as the asked node sees them."""
        return read(tuple[models.NodeRow, ...], await self._call("GET", "/nodes", "read nodes"))

    async def own_name(self) -> str:
        """The name of the node that answers."""
        return read(models.ClusterRow, await self._call("GET", "/cluster", "read cluster")).self

    # Every client

    async def clear_all_caches(self) -> None:
        """Make every connection forget its access decisions."""
        await self._call("DELETE", "/authorization/cache", "clear all caches")

    # Bans

    async def bans(self) -> AsyncIterator[Ban]:
        """Every ban, page by page."""
        async for row in self._listing(models.BanRow, "/banned", "list bans"):
            yield row.ban()

    # Rules

    async def client_rules(self) -> AsyncIterator[tuple[str, AccessRules]]:
        """Every client that has rules of its own, page by page."""
        async for row in self._listing(models.ClientRulesRow, f"{_RULES}/clients", "list rules"):
            yield row.clientid, models.rules_of(row)

    async def has_user_rules(self) -> bool:
        """Whether any user name has rules."""
        answer = await self._call("GET", f"{_RULES}/users", "list rules", query={"page": 1, "limit": 1})
        return bool(read(models.ListingPage[models.RulesRow], answer).data)

    async def all_rules(self) -> AccessRules:
        """The rules for everybody."""
        answer = await self._maybe("GET", f"{_RULES}/all", "read rules for all")
        return () if answer is None else models.rules_of(read(models.RulesRow, answer))

    async def write_all_rules(self, rules: AccessRules) -> None:
        """Make these the rules for everybody."""
        body = {"rules": [models.rule_body(rule) for rule in rules]}
        await self._call("POST", f"{_RULES}/all", "write rules for all", body=body)

    async def delete_all_rules(self) -> None:
        """Leave no rules for everybody."""
        await self._maybe("DELETE", f"{_RULES}/all", "delete rules for all")

    # Settings

    async def sources(self) -> tuple[models.SourceRow, ...]:
        """Whom EMQX asks for access, in order."""
        return read(models.SourcesRow, await self._call("GET", _SOURCES, "read sources")).sources

    async def create_database(self) -> None:
        """Add the built-in database as the first source."""
        body = {"type": models.DATABASE, "enable": True}
        await self._call("POST", _SOURCES, "add source", body=body, repeat=False)

    async def write_source(self, source: models.SourceRow) -> None:
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

    async def authenticators(self) -> tuple[models.AuthenticatorRow, ...]:
        """The authentication chain; empty lets everybody in."""
        answer = await self._call("GET", "/authentication", "read authentication")
        return read(tuple[models.AuthenticatorRow, ...], answer)

    async def is_superuser(self, authenticator_id: str, user_id: str) -> bool:
        """Whether a built-in user passes every access rule; a user that is not there does not."""
        if user_id in {"", ".", ".."}:
            return False
        path = f"/authentication/{quote(authenticator_id, safe='')}/users/{quote(user_id, safe='')}"
        answer = await self._maybe("GET", path, "read user")
        return answer is not None and read(models.UserRow, answer).is_superuser

    async def listeners(self) -> tuple[models.ListenerRow, ...]:
        """Every listener, without its TLS settings."""
        return read(tuple[models.ListenerRow, ...], await self._call("GET", "/listeners", "read listeners"))

    async def listener(self, listener_id: str) -> models.ListenerRow | None:
        """One listener with its TLS settings."""
        answer = await self._maybe("GET", f"/listeners/{quote(listener_id, safe='')}", "read listener")
        return None if answer is None else read(models.ListenerRow, answer)

    async def zone(self) -> models.ZoneRow:
        """The global zone."""
        return read(models.ZoneRow, await self._call("GET", "/configs/global_zone", "read zone"))

    # Messages

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Publish over HTTP, past every access rule; whether anybody was subscribed. Never repeated."""
        encoded = base64.b64encode(payload).decode()
        body = {"topic": topic, "payload": encoded, "payload_encoding": "base64", "qos": qos, "retain": retain}
        answer = await self._call("POST", "/publish", "publish", body=body, repeat=False)
        return answer.status == 200

    # Any call

    async def ask(
        self, method: HttpMethod, path: str, what: str, *, body: object = None, repeat: bool = True, bearer: str = ""
    ) -> ApiResponse:
        """Any call, for the parts of the API that only one module needs.

        `bearer` is a dashboard login's token in the place of the API key.
        """
        return await self.send(ApiRequest(method, path, what, body=body, repeat=repeat, bearer=bearer))

    async def pages(self, path: str, what: str, size: int) -> AsyncIterator[list[Any]]:
        """The pages of a listing as plain JSON, for those who take only some rows apart."""
        for page in range(1, MAX_PAGES + 1):
            answer = await self._call("GET", path, what, query={"page": page, "limit": size})
            content = read(models.ListingPage[Any], answer)
            yield list(content.data)
            if is_last(content.data, content.meta, page, size):
                return
        raise BrokerAnswerError(f"{path}: more than {MAX_PAGES} pages")

    async def count(self, path: str) -> int | None:
        """How many rows a listing has, where it tells."""
        answer = await self._call("GET", path, "count rows", query={"page": 1, "limit": 1})
        return read(models.ListingPage[Any], answer).meta.count
