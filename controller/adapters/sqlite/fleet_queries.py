"""`controller.ports.fleet_queries` on SQLite: statements over the facets of devices (migration m0005).

It has readers of its own: a long list holds up neither commits nor the reads that ingest waits for.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from controller.adapters.sql import codec
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.reader import DEVICES, ReaderPool
from controller.domain.device import Device
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel
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
_STEPS: Final = 50_000  # of SQLite's machine between two looks at the clock: about a millisecond
_LEVELS: Final = tuple(sorted(ContainmentLevel, key=lambda level: level.rank))
_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity, 1)}
_SEEN: Final = "CASE WHEN r.accepted > d.accepted THEN max(d.last_seen, r.reported_at) ELSE d.last_seen END"
_WORST: Final = """(SELECT coalesce(max(s.value), 0) FROM device_findings x JOIN severities s ON s.key = x.rule
    WHERE x.device_id = f.device_id AND x.result = 'fail')"""
_SORTS: Final = {
    DeviceSort.ID: "f.device_id",
    DeviceSort.LAST_SEEN: _SEEN,
    DeviceSort.LEVEL: "f.level",
    DeviceSort.SEVERITY: _WORST,
    DeviceSort.FAILING: "f.failing",
    DeviceSort.CLASS: "f.class",
}
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


class SqliteFleetQueries(FleetQueries):
    """Reads the file of a store that is open in this process."""

    def __init__(self, path: Path, options: StoreOptions, seconds: float = QUERY_SECONDS) -> None:
        self._readers = ReaderPool(path, replace(options, readers=_READERS))
        self._seconds = seconds

    async def devices(self, query: DeviceQuery) -> DeviceList:
        if not 1 <= query.limit <= MAX_PAGE or query.offset < 0:
            raise ValueError(f"a page has between 1 and {MAX_PAGE} devices and starts at 0 or later")
        return await self._run(lambda connection: _devices(connection, query))

    async def summary(self) -> FleetSummary:
        return await self._run(_summary)

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        def bounded(connection: sqlite3.Connection) -> T:
            with _within(connection, self._seconds):
                return query(connection)

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
        raise QueryTooLongError(f"the query took longer than {seconds:g} s: name more of what it is for") from error
    finally:
        connection.set_progress_handler(None, 0)
        connection.execute("COMMIT")


def _devices(connection: sqlite3.Connection, query: DeviceQuery) -> DeviceList:
    source, conditions, values = _selection(query)
    severities = {rule: _RANKS[severity] for rule, severity in query.severities.items()}
    values.update(severities=json.dumps(severities), now=query.now)
    where = " AND ".join(conditions)
    # Every part of a statement is a constant of this module; every value is bound.
    (total,) = connection.execute(f"{_TERMS} SELECT count(*) FROM {source} WHERE {where}", values).fetchone()  # noqa: S608
    sort, order, beyond = _SORTS[query.sort], *(("DESC", "<") if query.descending else ("ASC", ">"))
    if query.after is not None:
        values["after_value"], values["after_id"] = query.after
        is_by_id = query.sort is DeviceSort.ID
        keys = (
            f"f.device_id {beyond} :after_id"
            if is_by_id
            else f"({sort}, f.device_id) {beyond} (:after_value, :after_id)"
        )
        where = f"{where} AND {keys}"
    page: list[tuple[str, SortValue]] = connection.execute(
        f"{_TERMS} SELECT f.device_id, {sort} FROM {source} WHERE {where}"  # noqa: S608
        f" ORDER BY {sort} {order}, f.device_id {order} LIMIT :limit OFFSET :offset",
        {**values, "limit": query.limit + 1, "offset": query.offset},
    ).fetchall()
    shown = page[: query.limit]
    rows = _load(connection, [device_id for device_id, _ in shown])
    following = (shown[-1][1], shown[-1][0]) if len(page) > query.limit else None
    return DeviceList([rows[device_id] for device_id, _ in shown], total, following)


def _load(connection: sqlite3.Connection, ids: list[str]) -> Mapping[str, Device]:
    wanted = f"{DEVICES} WHERE devices.device_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
    found = connection.execute(wanted, (json.dumps(ids),))
    return {device.device_id: device for device in map(codec.device_from, found)}


def _selection(query: DeviceQuery) -> tuple[str, list[str], dict[str, Any]]:
    """Returns tables, conditions and their values."""
    where, source = query.where, "device_facets f"
    conditions, values = ["1"], {}
    for name, value, condition in (
        ("level", where.level and where.level.rank, "f.level = :level"),
        ("contained", where.contained, "(f.level > 0) = :contained"),
        ("stale", where.stale, "f.stale = :stale"),
        ("pending", where.pending, "f.pending = :pending"),
        ("online", where.online, "f.online = :online"),
        ("class", where.device_class, "f.class = :class"),
        ("agent", where.agent, "f.agent = :agent"),
        ("tag", where.tag, "t.tag = :tag"),
        # Few devices are looked up among the reports: those whose own row is that old.
        ("seen_before", where.seen_before, f"d.last_seen < :seen_before AND {_SEEN} < :seen_before"),
        ("search", where.search and where.search.casefold(), "instr(f.words, :search) > 0"),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    # These enable indexes.
    contained = where.contained or (where.level or ContainmentLevel.NONE) is not ContainmentLevel.NONE
    is_set = {"f.stale = 1": where.stale, "f.pending = 1": where.pending, "f.level > 0": contained}
    conditions += [condition for condition, wanted in is_set.items() if wanted]
    if where.tag is not None:
        source = "device_tags t CROSS JOIN device_facets f USING (device_id)"
    if where.seen_before is not None or query.sort is DeviceSort.LAST_SEEN:
        source = f"{source} JOIN devices d USING (device_id) LEFT JOIN reports r USING (device_id)"
    return source, [*conditions, *_finding(query, values)], values


def _finding(query: DeviceQuery, values: dict[str, Any]) -> list[str]:
    """The condition that one unsatisfied rule is as wanted."""
    where = query.where
    if where.rule is None and where.result is None and where.severity is None and where.waived is None:
        return []
    values["result"] = (where.result or RuleResult.FAIL).value
    parts = ["x.result = :result"]
    if where.rule is not None:
        values["name"] = where.rule.rpartition("/")[2]
        parts.append("x.name = :name")
        if "/" in where.rule:
            values["rule"] = where.rule
            parts.append("x.rule = :rule")
    if where.severity is not None:
        values["rank"] = _RANKS[where.severity]
        parts.append("x.rule IN (SELECT key FROM severities WHERE value >= :rank)")
    if where.waived is None:
        return [f"f.device_id IN (SELECT x.device_id FROM device_findings x WHERE {' AND '.join(parts)})"]  # noqa: S608
    parts.append(_WAIVED if where.waived else f"NOT {_WAIVED}")
    return [f"EXISTS (SELECT 1 FROM device_findings x WHERE x.device_id = f.device_id AND {' AND '.join(parts)})"]  # noqa: S608


def _summary(connection: sqlite3.Connection) -> FleetSummary:
    levels: dict[tuple[ContainmentLevel, bool], int] = {}
    presence: dict[bool | None, int] = {}
    waiting = 0
    for rank, stale, online, pending, count in connection.execute(
        "SELECT level, stale, online, pending, count(*) FROM device_facets GROUP BY 1, 2, 3, 4"
    ):
        key, seen = (_LEVELS[rank], bool(stale)), None if online is None else bool(online)
        levels[key] = levels.get(key, 0) + count
        presence[seen] = presence.get(seen, 0) + count
        waiting += count * pending
    (unread,) = connection.execute(_UNREAD).fetchone()
    rules = connection.execute("SELECT rule, result, count(*) FROM device_findings GROUP BY 1, 2")
    return FleetSummary(
        levels,
        presence,
        waiting,
        unread,
        _groups(connection, "class", "device_facets WHERE class <> ''"),
        _groups(connection, "tag", "device_tags"),
        {(rule, RuleResult(result)): count for rule, result, count in rules},
        _groups(connection, f"substr(detail, 1, {MAX_REASON})", "device_findings WHERE result <> 'fail'"),
    )


def _groups(connection: sqlite3.Connection, what: str, source: str) -> dict[str, int]:
    """The most frequent values, by frequency, then by value."""
    rows = connection.execute(
        f"SELECT CAST(one AS BLOB), many FROM (SELECT {what} one, count(*) many FROM {source} GROUP BY 1"  # noqa: S608
        f" ORDER BY 2 DESC, 1 LIMIT {MAX_GROUPS})"
    )
    return {text.decode(errors="replace"): count for text, count in rows}
