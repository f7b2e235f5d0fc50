"""`controller.ports.fleet_queries` on PostgreSQL: statements over the facets of devices (`postgres/facets.py`).

It has readers of its own: a long list holds up neither commits nor the reads that ingest waits for.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

import psycopg

from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.connection import PostgresConnection
from controller.adapters.postgres.reader import DEVICES, PostgresReaders, device_of
from controller.adapters.sql.options import StoreOptions
from controller.domain.device import Device
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import StoreError
from controller.ports.fleet_queries import (
    MAX_GROUPS,
    MAX_PAGE,
    MAX_REASON,
    QUERY_SECONDS,
    DeviceList,
    DeviceQuery,
    DeviceSort,
    FleetQueries,
    FleetSummary,
    QueryTooLongError,
    SortValue,
)

T = TypeVar("T")
_READERS: Final = 2
_LEVELS: Final = tuple(sorted(ContainmentLevel, key=lambda level: level.rank))
_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity, 1)}
# Only a device with a failing rule is looked up among the findings.
_WORST: Final = """CASE WHEN f.failing = 0 THEN 0 ELSE (SELECT coalesce(max(s.value), 0) FROM device_findings x
    JOIN severities s ON s.key = x.rule WHERE x.device_id = f.device_id AND x.result = 'fail') END"""
_SORTS: Final = {
    DeviceSort.ID: "f.device_id",
    DeviceSort.LAST_SEEN: "c.last_seen",
    DeviceSort.LEVEL: "f.level",
    DeviceSort.SEVERITY: _WORST,
    DeviceSort.FAILING: "f.failing",
    DeviceSort.CLASS: "f.class",
}
_WAIVED: Final = """EXISTS (SELECT 1 FROM waived w WHERE x.result = 'fail'
    AND w.rule IN (x.rule, left(x.rule, length(x.rule) - length(x.name)) || '*')
    AND CASE WHEN w.expression <> '' THEN f.predicates ? w.predicate WHEN w.tag <> '' THEN f.tags ? w.tag
        ELSE w.device = f.device_id END)"""
_TERMS: Final = """WITH severities AS MATERIALIZED (
        SELECT key, value::integer AS value FROM json_each_text(%(severities)s::json)),
    waived AS MATERIALIZED (SELECT body ->> 'rule' AS rule, body ->> 'device' AS device, body ->> 'tag' AS tag,
        body ->> 'expression' AS expression, 'waiver:' || waiver_id AS predicate
        FROM (SELECT waiver_id, cordon_json(body) AS body FROM waivers WHERE expires_at > %(now)s OFFSET 0) w)"""
_STALE: Final = "EXISTS (SELECT 1 FROM contacts WHERE contacts.device_id = f.device_id AND contacts.stale)"
_STATES: Final = """SELECT f.level, coalesce(c.stale, false), f.online, f.pending, count(*)
    FROM device_facets f LEFT JOIN contacts c ON c.device_id = f.device_id AND c.stale GROUP BY 1, 2, 3, 4"""
# As `ContainmentCase.unread`.
_UNREAD: Final = """SELECT count(*) FROM (SELECT level, cordon_json(state) -> 'case' AS one FROM devices
        WHERE device_id IN (SELECT device_id FROM device_facets WHERE level > 0) OFFSET 0) d
    WHERE one #>> '{partial,level}' = level AND one ->> 'proven_level' <> level
    AND jsonb_array_length(one #> '{partial,nodes}') > 0"""


class PostgresFleetQueries(FleetQueries):
    """Reads the database in connections of its own."""

    def __init__(self, address: PostgresAddress, options: StoreOptions, seconds: float = QUERY_SECONDS) -> None:
        self._readers = PostgresReaders(address, replace(options, readers=_READERS))
        self._seconds = seconds

    async def devices(self, query: DeviceQuery) -> DeviceList:
        if not 1 <= query.limit <= MAX_PAGE or query.offset < 0:
            raise ValueError(f"a page has between 1 and {MAX_PAGE} devices and starts at 0 or later")
        return await self._run(lambda snapshot: _devices(snapshot, query))

    async def summary(self) -> FleetSummary:
        return await self._run(_summary)

    async def _run(self, query: Callable[["_Snapshot"], T]) -> T:
        def bounded(connection: PostgresConnection) -> T:
            with connection.snapshot():
                return query(_Snapshot(connection, self._seconds))

        try:
            async with asyncio.timeout(2 * self._seconds):  # also while the server does not answer
                return await self._readers.run(bounded, self._seconds)
        except TimeoutError:
            raise StoreError("PostgreSQL does not answer") from None

    def close(self) -> None:
        """Ends running queries; blocks."""
        self._readers.close()


class _Snapshot:
    """Executes the statements of one query, which have `seconds` together."""

    def __init__(self, connection: PostgresConnection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        # The best plan depends on the values; and compiling a statement takes longer than it saves.
        connection.raw.execute("SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL jit = off")

    def rows(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Returns all rows; values stand for `%(name)s` in the statement.

        Raises:
            QueryTooLongError: the time is over.
        """
        left = max(1, round((self._end - time.monotonic()) * 1000))
        try:
            self._connection.raw.execute(f"SET LOCAL statement_timeout = {left}")
            return self._connection.raw.execute(statement, values).fetchall()
        except psycopg.errors.QueryCanceled as error:
            text = f"the query took longer than {self._seconds:g} s: name more of what it is for"
            raise QueryTooLongError(text) from error


def _devices(snapshot: _Snapshot, query: DeviceQuery) -> DeviceList:
    source, conditions, values = _selection(query)
    severities = {rule: _RANKS[severity] for rule, severity in query.severities.items()}
    values.update(severities=json.dumps(severities), now=query.now)
    where = " AND ".join(conditions)
    # Every part of a statement is a constant of this module; every value is bound.
    ((total,),) = snapshot.rows(f"{_TERMS} SELECT count(*) FROM {source} WHERE {where}", values)  # noqa: S608
    sort, order, beyond = _SORTS[query.sort], *(("DESC", "<") if query.descending else ("ASC", ">"))
    if query.after is not None:
        values["after_value"], values["after_id"] = map(_text, query.after)
        is_by_id = query.sort is DeviceSort.ID
        keys = (
            f"f.device_id {beyond} %(after_id)s"
            if is_by_id
            else f"({sort}, f.device_id) {beyond} (%(after_value)s, %(after_id)s)"
        )
        where = f"{where} AND {keys}"
    page: list[tuple[Any, ...]] = snapshot.rows(
        f"{_TERMS} SELECT f.device_id, {sort} FROM {source} WHERE {where}"  # noqa: S608
        f" ORDER BY 2 {order}, 1 {order} LIMIT %(limit)s OFFSET %(offset)s",
        {**values, "limit": query.limit + 1, "offset": query.offset},
    )
    shown = page[: query.limit]
    rows = _load(snapshot, [device_id for device_id, _ in shown])
    following: tuple[SortValue, str] | None = (shown[-1][1], shown[-1][0]) if len(page) > query.limit else None
    return DeviceList([rows[device_id] for device_id, _ in shown], total, following)


def _load(snapshot: _Snapshot, ids: list[str]) -> Mapping[str, Device]:
    found = snapshot.rows(f"{DEVICES} WHERE devices.device_id = ANY(%(ids)s)", {"ids": ids})
    return {device.device_id: device for device in map(device_of, found)}


def _text(value: Any) -> Any:
    """PostgreSQL takes no NUL in a text, and no row has one: such a value matches nothing."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _selection(query: DeviceQuery) -> tuple[str, list[str], dict[str, Any]]:
    """Returns tables, conditions and their values."""
    where, source = query.where, "device_facets f"
    conditions, values = ["true"], {}
    for name, value, condition in (
        ("level", where.level and where.level.rank, "f.level = %(level)s"),
        ("contained", where.contained, "(f.level > 0) = %(contained)s"),
        ("stale", where.stale, _STALE if where.stale else f"NOT {_STALE}"),
        ("pending", where.pending, "f.pending = %(pending)s"),
        ("online", where.online, "f.online = %(online)s"),
        ("class", where.device_class, "f.class = %(class)s"),
        ("agent", where.agent, "c.agent = %(agent)s"),
        ("tag", where.tag, "f.device_id IN (SELECT device_id FROM device_tags WHERE tag = %(tag)s)"),
        ("seen_before", where.seen_before, "c.last_seen < %(seen_before)s"),
        ("search", where.search and where.search.casefold(), "strpos(f.words, %(search)s) > 0"),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = _text(value)
    if where.seen_before is not None or where.agent is not None or query.sort is DeviceSort.LAST_SEEN:
        source = f"{source} JOIN contacts c USING (device_id)"
    return source, [*conditions, *_finding(query, values)], values


def _finding(query: DeviceQuery, values: dict[str, Any]) -> list[str]:
    """The condition that one unsatisfied rule is as wanted."""
    where = query.where
    if where.rule is None and where.result is None and where.severity is None and where.waived is None:
        return []
    values["result"] = (where.result or RuleResult.FAIL).value
    parts = ["x.result = %(result)s"]
    if where.rule is not None:
        values["name"] = _text(where.rule.rpartition("/")[2])
        parts.append("x.name = %(name)s")
        if "/" in where.rule:
            values["rule"] = _text(where.rule)
            parts.append("x.rule = %(rule)s")
    if where.severity is not None:
        values["rank"] = _RANKS[where.severity]
        parts.append("x.rule IN (SELECT key FROM severities WHERE value >= %(rank)s)")
    if where.waived is not None:
        parts.append(_WAIVED if where.waived else f"NOT {_WAIVED}")
    return [f"EXISTS (SELECT 1 FROM device_findings x WHERE x.device_id = f.device_id AND {' AND '.join(parts)})"]  # noqa: S608


def _summary(snapshot: _Snapshot) -> FleetSummary:
    levels: dict[tuple[ContainmentLevel, bool], int] = {}
    presence: dict[bool | None, int] = {}
    waiting = 0
    for rank, stale, online, pending, count in snapshot.rows(_STATES, {}):
        levels[_LEVELS[rank], stale] = levels.get((_LEVELS[rank], stale), 0) + count
        presence[online] = presence.get(online, 0) + count
        waiting += count * pending
    ((unread,),) = snapshot.rows(_UNREAD, {})
    rules = snapshot.rows("SELECT rule, result, count(*) FROM device_findings GROUP BY 1, 2", {})
    return FleetSummary(
        levels,
        presence,
        waiting,
        unread,
        _groups(snapshot, "class", "device_facets WHERE class <> ''"),
        _groups(snapshot, "tag", "device_tags"),
        {(rule, RuleResult(result)): count for rule, result, count in rules},
        _groups(snapshot, f"left(detail, {MAX_REASON})", "device_findings WHERE result <> 'fail'"),
    )


def _groups(snapshot: _Snapshot, what: str, source: str) -> dict[str, int]:
    """The most frequent values, by frequency, then by value."""
    statement = f"SELECT {what}, count(*) FROM {source} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MAX_GROUPS}"  # noqa: S608
    return dict(snapshot.rows(statement, {}))
