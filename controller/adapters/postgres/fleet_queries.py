"""`controller.ports.fleet_queries` on PostgreSQL: statements over the facets of devices (`postgres/facets.py`).

It has readers of its own: a long list holds up neither commits nor the reads that ingest waits for.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, TypeVar

import psycopg

from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.connection import PostgresConnection
from controller.adapters.postgres.reader import DEVICES, PostgresReaders, device_of
from controller.adapters.sql import fleet_queries as shared
from controller.adapters.sql.fleet_queries import FleetSql, Selection
from controller.adapters.sql.options import StoreOptions
from controller.domain.device import Device
from controller.ports.errors import StoreError
from controller.ports.fleet_queries import (
    MAX_GROUPS,
    QUERY_SECONDS,
    DeviceList,
    DeviceQuery,
    DeviceSort,
    FleetQueries,
    FleetSummary,
)

T = TypeVar("T")
_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")  # a name, not the type of a cast
# Only a device with a failing rule is looked up among the findings.
_WORST: Final = """CASE WHEN f.failing = 0 THEN 0 ELSE (SELECT coalesce(max(s.value), 0) FROM device_findings x
    JOIN severities s ON s.key = x.rule WHERE x.device_id = f.device_id AND x.result = 'fail') END"""
_WAIVED: Final = """EXISTS (SELECT 1 FROM waived w WHERE x.result = 'fail'
    AND w.rule IN (x.rule, left(x.rule, length(x.rule) - length(x.name)) || '*')
    AND CASE WHEN w.expression <> '' THEN f.predicates ? w.predicate WHEN w.tag <> '' THEN f.tags ? w.tag
        ELSE w.device = f.device_id END)"""
_TERMS: Final = """WITH severities AS MATERIALIZED (
        SELECT key, value::integer AS value FROM json_each_text(CAST(:severities AS json))),
    waived AS MATERIALIZED (SELECT body ->> 'rule' AS rule, body ->> 'device' AS device, body ->> 'tag' AS tag,
        body ->> 'expression' AS expression, 'waiver:' || waiver_id AS predicate
        FROM (SELECT waiver_id, cordon_json(body) AS body FROM waivers WHERE expires_at > :now OFFSET 0) w)"""
_STALE: Final = "EXISTS (SELECT 1 FROM contacts WHERE contacts.device_id = f.device_id AND contacts.stale)"
_STATES: Final = """SELECT f.level, coalesce(c.stale, false), f.online, f.pending, count(*)
    FROM device_facets f LEFT JOIN contacts c ON c.device_id = f.device_id AND c.stale GROUP BY 1, 2, 3, 4"""
# As `ContainmentCase.unread`.
_UNREAD: Final = """SELECT count(*) FROM (SELECT level, cordon_json(state) -> 'case' AS one FROM devices
        WHERE device_id IN (SELECT device_id FROM device_facets WHERE level > 0) OFFSET 0) d
    WHERE one #>> '{partial,level}' = level AND one ->> 'proven_level' <> level
    AND jsonb_array_length(one #> '{partial,nodes}') > 0"""
_SQL: Final = FleetSql(_TERMS, "c.last_seen", _WORST, _WAIVED, _STATES, _UNREAD)
_FILTERS: Final = {
    "level": "f.level = :level",
    "contained": "(f.level > 0) = :contained",
    "pending": "f.pending = :pending",
    "online": "f.online = :online",
    "class": "f.class = :class",
    "agent": "c.agent = :agent",
    "tag": "f.device_id IN (SELECT device_id FROM device_tags WHERE tag = :tag)",
    "seen_before": "c.last_seen < :seen_before",
    "search": "strpos(f.words, :search) > 0",
}


class PostgresFleetQueries(FleetQueries):
    """Reads the database in connections of its own."""

    def __init__(self, address: PostgresAddress, options: StoreOptions, seconds: float = QUERY_SECONDS) -> None:
        self._readers = PostgresReaders(address, replace(options, readers=shared.READERS))
        self._seconds = seconds

    async def devices(self, query: DeviceQuery) -> DeviceList:
        shared.check_page(query)
        return await self._run(lambda snapshot: shared.devices(snapshot, _SQL, query, _selection(query)))

    async def summary(self) -> FleetSummary:
        return await self._run(lambda snapshot: shared.summary(snapshot, _SQL))

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
        """Returns all rows.

        Raises:
            QueryTooLongError: the time is over.
        """
        left = max(1, round((self._end - time.monotonic()) * 1000))
        bound = {name: _text(value) for name, value in values.items()}
        try:
            self._connection.raw.execute(f"SET LOCAL statement_timeout = {left}")
            return self._connection.raw.execute(_in_psycopgs_form(statement), bound).fetchall()
        except psycopg.errors.QueryCanceled as error:
            raise shared.too_long(self._seconds) from error

    def load(self, ids: Sequence[str]) -> Mapping[str, Device]:
        found = self.rows(f"{DEVICES} WHERE devices.device_id = ANY(:ids)", {"ids": ids})
        return {device.device_id: device for device in map(device_of, found)}

    def groups(self, what: str, source: str) -> dict[str, int]:
        statement = f"SELECT {what}, count(*) FROM {source} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MAX_GROUPS}"  # noqa: S608
        return dict(self.rows(statement, {}))


@lru_cache(maxsize=256)
def _in_psycopgs_form(statement: str) -> str:
    return _PARAMETER.sub(r"%(\1)s", statement)


def _text(value: Any) -> Any:
    """PostgreSQL takes no NUL in a text, and no row has one: such a value matches nothing."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _selection(query: DeviceQuery) -> Selection:
    where = query.where
    needs_contact = where.seen_before is not None or where.agent is not None or query.sort is DeviceSort.LAST_SEEN
    source = "device_facets f JOIN contacts c USING (device_id)" if needs_contact else "device_facets f"
    stale = (
        _STALE if where.stale else f"NOT {_STALE}"
    )  # one of the two, so that few stale ones are found by their index
    return shared.select(source, query, {**_FILTERS, "stale": stale}, _SQL)
