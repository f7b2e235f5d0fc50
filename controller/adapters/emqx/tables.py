"""EMQX's tables for comparisons: pages are filtered as plain JSON, so that foreign rows cost little."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from controller.adapters.emqx.client import models, requests
from controller.adapters.emqx.client.api import EmqxApi, find_ban
from controller.adapters.emqx.client.cluster import ClusterNodes
from controller.adapters.emqx.client.http import ApiRequest
from controller.adapters.emqx.client.models import ListingPage
from controller.adapters.emqx.client.prefixes import PrefixesInUse, own_rule
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import (
    BAN_MARK,
    AccessRules,
    Ban,
    BrokerTables,
    ClusterReading,
    SubjectFilter,
    TableCounts,
)
from controller.ports.errors import BrokerAnswerError

_BAN_ROWS: Final = TypeAdapter(tuple[models.BanRow, ...])
_RULE_ROWS: Final = TypeAdapter(tuple[models.ClientRulesRow, ...])
PAGE: Final = 5000  # rows; EMQX skips over all earlier pages for each one, and gives at most 10,000
_CACHED: Final = 1000  # different sets of rules cached while a listing is read


def _list_bans(page: int, limit: int) -> ApiRequest[ListingPage[Any]]:
    return requests.list_rows(requests.BANS, "list bans", Any, page, limit)


def _list_rules(page: int, limit: int) -> ApiRequest[ListingPage[Any]]:
    return requests.list_rows(requests.CLIENT_RULES, "list rules", Any, page, limit)


class EmqxTables(BrokerTables):
    def __init__(self, api: EmqxApi, cluster: ClusterNodes, prefixes: PrefixesInUse) -> None:
        self._api = api
        self._cluster = cluster
        self._prefixes = prefixes
        self.requests = 0  # of listings and counts, for measurements

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._api.addresses

    @property
    def prefixes(self) -> frozenset[str]:
        return self._prefixes.found

    async def read_prefixes(self) -> str:
        return await self._prefixes.refresh()

    async def cluster(self) -> ClusterReading:
        return await self._cluster.read()

    async def bans(self, node: str, wanted: SubjectFilter) -> AsyncIterator[Ban]:
        async for page in self._api.on_node(node).pages(_list_bans, PAGE):
            self.requests += 1
            for row in _parsed(_BAN_ROWS, [row for row in page if _matches(row, wanted)], node):
                yield row.ban()

    async def rules(self, node: str, wanted: SubjectFilter) -> AsyncIterator[tuple[str, AccessRules]]:
        cache = _RulesCache()
        async for page in self._api.on_node(node).pages(_list_rules, PAGE):
            self.requests += 1
            unknown = []
            for row in page:
                for topic in _topics(row) or ():
                    if "$" in topic and not _is_own_rule(row, topic):
                        self._prefixes.note(topic)
                if not isinstance(row, dict) or wanted(str(row.get("clientid"))):
                    rules = cache.find(row)
                    if rules is None:
                        unknown.append(row)
                    else:
                        yield str(row["clientid"]), rules
            for row, parsed in zip(unknown, _parsed(_RULE_ROWS, unknown, node), strict=True):
                yield parsed.clientid, cache.add(row, models.rules_of(parsed))

    async def counts(self, node: str) -> TableCounts:
        api = self._api.on_node(node)
        self.requests += 2
        bans, rules = await api.send(_list_bans(1, 1)), await api.send(_list_rules(1, 1))
        return TableCounts(bans.meta.count, rules.meta.count)

    async def ban_of(self, node: str, client_id: str) -> Ban | None:
        subject = Subject.client(client_id)
        return await find_ban(self._api.on_node(node), partial(requests.read_ban, subject), subject)

    async def rules_of(self, node: str, client_id: str) -> AccessRules | None:
        return await self._api.on_node(node).send(requests.read_rules(Subject.client(client_id)))

    async def write_rules(self, node: str, client_id: str, rules: AccessRules) -> None:
        await self._api.on_node(node).send(requests.write_rules(Subject.client(client_id), rules))


class _RulesCache:
    """Rules by the JSON they were parsed from: devices of a class have the same, and comparing JSON is cheaper."""

    def __init__(self) -> None:
        self._rules: dict[tuple[Any, ...], tuple[Any, AccessRules]] = {}

    def find(self, row: Any) -> AccessRules | None:
        """The rules of a row whose very same rules were parsed before."""
        key = _topics(row)
        cached = None if key is None else self._rules.get(key)
        return cached[1] if cached is not None and cached[0] == row["rules"] else None

    def add(self, row: Any, rules: AccessRules) -> AccessRules:
        """Caches the row's rules by their topics, and returns them."""
        key = _topics(row)
        if key is not None and len(self._rules) < _CACHED:
            self._rules[key] = (row["rules"], rules)
        return rules


def _topics(row: Any) -> tuple[Any, ...] | None:
    try:
        return tuple([str(rule["topic"]) for rule in row["rules"]])
    except (TypeError, KeyError):
        return None  # reported as a wrong shape when it is parsed


def _is_own_rule(row: Any, topic: str) -> bool:
    """Whether the row names the topic only to deny it, as a restriction does."""
    rules = [rule for rule in row["rules"] if str(rule["topic"]) == topic]
    return all(own_rule(topic, str(rule.get("permission")), str(rule.get("action"))) for rule in rules)


def _matches(row: Any, wanted: SubjectFilter) -> bool:
    if not isinstance(row, dict):
        return True  # reported as a wrong shape when it is parsed
    if row.get("as") != "clientid":
        return False
    return str(row.get("by", "")).startswith(BAN_MARK) or wanted(str(row.get("who")))


def _parsed(adapter: TypeAdapter[Any], rows: list[Any], node: str) -> Any:
    try:
        return adapter.validate_python(rows)
    except ValidationError as e:
        raise BrokerAnswerError(f"{node}: an answer of the wrong shape: {models.validation_errors(e)}") from e
