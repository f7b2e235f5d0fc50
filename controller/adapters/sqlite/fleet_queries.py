"""`controller.ports.fleet_queries` on SQLite: statements over the facets of devices (migration m0005).

It has readers of its own: a long list holds up neither commits nor the reads that ingest waits for.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from controller.adapters.sql import codec
from controller.adapters.sql import fleet_queries as shared
from controller.adapters.sql.fleet_queries import FleetSql, Selection
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.reader import DEVICES, ReaderPool
from controller.domain.device import Device
from controller.domain.policy.model import ContainmentLevel
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
_STEPS: Final = 50_000  # of SQLite's machine between two looks at the clock: about a millisecond
_SEEN: Final = "CASE WHEN r.accepted > d.accepted THEN max(d.last_seen, r.reported_at) ELSE d.last_seen END"
_WORST: Final = """(SELECT coalesce(max(s.value), 0) FROM device_findings x JOIN severities s ON s.key = x.rule
    WHERE x.device_id = f.device_id AND x.result = 'fail')"""
_WAIVED: Final = """EXISTS (SELECT 1 FROM waived w WHERE x.result = 'fail'
    AND w.rule IN (x.rule, substr(x.rule, 1, length(x.rule) - length(x.name)) || '*')
    AND CASE WHEN w.expression <> '' THEN EXISTS (SELECT 1 FROM json_each(f.labels, '$[2]') WHERE value = w.predicate)
        WHEN w.tag <> '' THEN EXISTS (SELECT 1 FROM json_each(f.labels, '$[1]') WHERE value = w.tag)
        ELSE w.device = f.device_id END)"""
_TERMS: Final = """WITH severities AS MATERIALIZED (SELECT key, value FROM json_each(:severities)),
    waived AS MATERIALIZED (SELECT json_extract(body, '$.rule') AS rule, json_extract(body, '$.device') AS device,
        json_extract(body, '$.tag') AS tag, json_extract(body, '$.expression') AS expression,
        'waiver:' || waiver_id AS predicate FROM waivers WHERE expires_at > :now)"""

# As `ContainmentCase.unread`.
_UNREAD: Final = """SELECT count(*) FROM device_facets f CROSS JOIN devices d USING (device_id) WHERE f.level > 0
    AND json_extract(d.state, '$.case.partial.level') = d.level
    AND json_extract(d.state, '$.case.proven_level') <> d.level
    AND json_array_length(d.state, '$.case.partial.nodes') > 0"""
_STATES: Final = "SELECT level, stale, online, pending, count(*) FROM device_facets GROUP BY 1, 2, 3, 4"
_SQL: Final = FleetSql(_TERMS, _SEEN, _WORST, _WAIVED, _STATES, _UNREAD)
_FILTERS: Final = {
    "level": "f.level = :level",
    "contained": "(f.level > 0) = :contained",
    "stale": "f.stale = :stale",
    "pending": "f.pending = :pending",
    "online": "f.online = :online",
    "class": "f.class = :class",
    "agent": "f.agent = :agent",
    "tag": "t.tag = :tag",
    # Few devices are looked up among the reports: those whose own row is that old.
    "seen_before": f"d.last_seen < :seen_before AND {_SEEN} < :seen_before",
    "search": "instr(f.words, :search) > 0",
}


class SqliteFleetQueries(FleetQueries):
    """Reads the file of a store that is open in this process."""

    def __init__(self, path: Path, options: StoreOptions, seconds: float = QUERY_SECONDS) -> None:
        self._readers = ReaderPool(path, replace(options, readers=shared.READERS))
        self._seconds = seconds

    async def devices(self, query: DeviceQuery) -> DeviceList:
        shared.check_page(query)
        return await self._run(lambda snapshot: shared.devices(snapshot, _SQL, query, _selection(query)))

    async def summary(self) -> FleetSummary:
        return await self._run(lambda snapshot: shared.summary(snapshot, _SQL))

    async def _run(self, query: Callable[["_Snapshot"], T]) -> T:
        def bounded(connection: sqlite3.Connection) -> T:
            with _within(connection, self._seconds):
                return query(_Snapshot(connection))

        return await self._readers.run(bounded)

    def close(self) -> None:
        """Waits for running queries; blocks."""
        self._readers.close()


@contextmanager
def _within(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """One snapshot for all statements, ended after `seconds`.

    Raises:
        QueryTooLongError: they took longer.
    """
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    connection.execute("BEGIN")
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        raise shared.too_long(seconds) from error
    finally:
        connection.set_progress_handler(None, 0)
        connection.execute("COMMIT")


class _Snapshot:
    """Executes the statements of one query."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    def load(self, ids: Sequence[str]) -> Mapping[str, Device]:
        wanted = f"{DEVICES} WHERE devices.device_id IN (SELECT value FROM json_each(:ids))"  # noqa: S608
        found = self.rows(wanted, {"ids": json.dumps(ids)})
        return {device.device_id: device for device in map(codec.device_from, found)}

    def groups(self, what: str, source: str) -> dict[str, int]:
        statement = (
            f"SELECT CAST(one AS BLOB), many FROM (SELECT {what} one, count(*) many FROM {source} GROUP BY 1"  # noqa: S608
            f" ORDER BY 2 DESC, 1 LIMIT {MAX_GROUPS})"
        )
        return {text.decode(errors="replace"): count for text, count in self.rows(statement, {})}


def _selection(query: DeviceQuery) -> Selection:
    where, source = query.where, "device_facets f"
    if where.tag is not None:
        source = "device_tags t CROSS JOIN device_facets f USING (device_id)"
    if where.seen_before is not None or query.sort is DeviceSort.LAST_SEEN:
        source = f"{source} JOIN devices d USING (device_id) LEFT JOIN reports r USING (device_id)"
    chosen = shared.select(source, query, _FILTERS, _SQL)
    # These enable indexes.
    contained = where.contained or (where.level or ContainmentLevel.NONE) is not ContainmentLevel.NONE
    is_set = {"f.stale = 1": where.stale, "f.pending = 1": where.pending, "f.level > 0": contained}
    chosen.conditions += [condition for condition, wanted in is_set.items() if wanted]
    return chosen
