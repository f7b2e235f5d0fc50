"""EMQX's tables for comparisons: pages are filtered as plain JSON, so that rows nobody asks about cost little."""

from collections.abc import AsyncIterator
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from controller.adapters.emqx.client import models
from controller.adapters.emqx.client.api import RULES_PATH, EmqxApi
from controller.ports.broker_tables import BAN_MARK, AccessRules, Ban, BrokerTables, SubjectFilter, TableCounts
from controller.ports.errors import BrokerAnswerError

_BANS: Final = "/banned"
_CLIENT_RULES: Final = f"{RULES_PATH}/clients"
_BAN_ROWS: Final = TypeAdapter(tuple[models.BanRow, ...])
_RULE_ROWS: Final = TypeAdapter(tuple[models.ClientRulesRow, ...])
PAGE: Final = 5000  # rows; EMQX skips over all earlier pages for each one, and gives at most 10,000
_KNOWN: Final = 1000  # different sets of rules remembered while a listing is read


class EmqxTables(BrokerTables):
    """See the port; over the same HTTP client as everything else."""

    def __init__(self, api: EmqxApi) -> None:
        """Use these calls. `requests` counts what the listings asked, for measuring."""
        self._api = api
        self.requests = 0

    @property
    def addresses(self) -> tuple[str, ...]:
        """See the port."""
        return self._api.addresses

    async def bans(self, node: str, wanted: SubjectFilter) -> AsyncIterator[Ban]:
        """See the port."""
        async for page in self._pages(node, _BANS, "list bans"):
            kept = [row for row in page if _concerns(row, wanted)]
            for ban in _parsed(_BAN_ROWS, kept, node):
                yield ban.ban()

    async def rules(self, node: str, wanted: SubjectFilter) -> AsyncIterator[tuple[str, AccessRules]]:
        """See the port."""
        known = _Known()
        async for page in self._pages(node, _CLIENT_RULES, "list rules"):
            strange = []
            for row in page:
                if not isinstance(row, dict) or wanted(str(row.get("clientid"))):
                    found = known.rules(row)
                    if found is None:
                        strange.append(row)
                    else:
                        yield str(row["clientid"]), found
            for row, found in zip(strange, _parsed(_RULE_ROWS, strange, node), strict=True):
                yield found.clientid, known.learn(row, models.rules_of(found))

    async def counts(self, node: str) -> TableCounts:
        """See the port."""
        here = self._api.at(node)
        self.requests += 2
        return TableCounts(await here.count(_BANS), await here.count(_CLIENT_RULES))

    async def ban_of(self, node: str, client_id: str) -> Ban | None:
        """See the port."""
        return await self._api.at(node).ban_of(client_id)

    async def rules_of(self, node: str, client_id: str) -> AccessRules | None:
        """See the port."""
        return await self._api.at(node).rules_or_none(client_id)

    async def write_rules(self, node: str, client_id: str, rules: AccessRules) -> None:
        """See the port."""
        await self._api.at(node).write_rules(client_id, rules)

    async def _pages(self, node: str, path: str, what: str) -> AsyncIterator[list[Any]]:
        async for page in self._api.at(node).pages(path, what, PAGE):
            self.requests += 1
            yield page


class _Known:
    """Rules taken apart once: devices of a class have the same, and comparing JSON is cheaper than reading it."""

    def __init__(self) -> None:
        self._rules: dict[tuple[Any, ...], tuple[Any, AccessRules]] = {}

    def rules(self, row: Any) -> AccessRules | None:
        """What the row's rules mean, if the very same were taken apart before."""
        key = _topics(row)
        known = None if key is None else self._rules.get(key)
        return known[1] if known is not None and known[0] == row["rules"] else None

    def learn(self, row: Any, rules: AccessRules) -> AccessRules:
        """Remember them by their topics; the same rules come out."""
        key = _topics(row)
        if key is not None and len(self._rules) < _KNOWN:
            self._rules[key] = (row["rules"], rules)
        return rules


def _topics(row: Any) -> tuple[Any, ...] | None:
    try:
        return tuple([str(rule["topic"]) for rule in row["rules"]])
    except (TypeError, KeyError):
        return None  # told as a wrong shape when it is taken apart


def _concerns(row: Any, wanted: SubjectFilter) -> bool:
    if not isinstance(row, dict):
        return True  # told as a wrong shape when it is taken apart
    if row.get("as") != "clientid":
        return False
    return str(row.get("by", "")).startswith(BAN_MARK) or wanted(str(row.get("who")))


def _parsed(adapter: TypeAdapter[Any], kept: list[Any], node: str) -> Any:
    try:
        return adapter.validate_python(kept)
    except ValidationError as e:
        raise BrokerAnswerError(f"{node}: an answer of the wrong shape: {models.faults(e)}") from e
