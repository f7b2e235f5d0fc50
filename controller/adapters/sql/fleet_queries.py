"""Lists and counts of the fleet over the facets of devices: what both engines answer alike.

Statements have named parameters, `:name`. An engine adds its own words in `FleetSql`, and what it reads by in a
`FleetSnapshot`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from controller.domain.device import Device
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel
from controller.ports.fleet_queries import (
    MAX_PAGE,
    MAX_REASON,
    DeviceList,
    DeviceQuery,
    DeviceSort,
    FleetSummary,
    QueryTooLongError,
    SortValue,
)

READERS: Final = 2  # of lists: a long one holds up neither commits nor the reads that ingest waits for
_LEVELS: Final = tuple(sorted(ContainmentLevel, key=lambda level: level.rank))
_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity, 1)}


class FleetSnapshot(Protocol):
    """Executes the statements of one query: they see one state, and have one time limit together."""

    def rows(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]: ...

    def load(self, ids: Sequence[str]) -> Mapping[str, Device]: ...

    def groups(self, what: str, source: str) -> dict[str, int]:
        """Returns at most `MAX_GROUPS` values of `what`, the most frequent first, then by value."""
        ...


@dataclass(frozen=True, slots=True)
class FleetSql:
    """What an engine says in its own words.

    `terms`: the tables `severities` and `waived`, before a statement. `last_seen`, `worst`: what is sorted by.
    `waived`: the condition that a waiver covers the finding `x`. `states`, `unread`: statements of a summary.
    """

    terms: str
    last_seen: str
    worst: str
    waived: str
    states: str
    unread: str

    def sort(self, by: DeviceSort) -> str:
        """Returns the expression that a list is sorted by."""
        own = {DeviceSort.ID: "f.device_id", DeviceSort.LAST_SEEN: self.last_seen, DeviceSort.SEVERITY: self.worst}
        return own.get(by) or f"f.{by.value}"


@dataclass(slots=True)
class Selection:
    """Which devices a list has: tables, conditions, and the values that are bound."""

    source: str
    conditions: list[str]
    values: dict[str, Any]


def check_page(query: DeviceQuery) -> None:
    """Checks the bounds of a page.

    Raises:
        ValueError: as `FleetQueries.devices`.
    """
    if not 1 <= query.limit <= MAX_PAGE or query.offset < 0:
        raise ValueError(f"a page has between 1 and {MAX_PAGE} devices and starts at 0 or later")


def too_long(seconds: float) -> QueryTooLongError:
    return QueryTooLongError(f"the query took longer than {seconds:g} s: name more of what it is for")


def select(source: str, query: DeviceQuery, filters: Mapping[str, str], sql: FleetSql) -> Selection:
    """Returns the selection of a query; `filters`: the engine's condition on `:NAME` for each filter."""
    where = query.where
    given: dict[str, Any] = {
        "level": where.level and where.level.rank,
        "contained": where.contained,
        "stale": where.stale,
        "pending": where.pending,
        "online": where.online,
        "class": where.device_class,
        "agent": where.agent,
        "tag": where.tag,
        "seen_before": where.seen_before,
        "search": where.search and where.search.casefold(),
    }
    values = {name: value for name, value in given.items() if value is not None}
    chosen = Selection(source, [filters[name] for name in values], values)
    _add_finding(chosen, query, sql)
    return chosen


def _add_finding(chosen: Selection, query: DeviceQuery, sql: FleetSql) -> None:
    """Adds the condition that one unsatisfied rule is as wanted."""
    where, values = query.where, chosen.values
    if where.rule is None and where.result is None and where.severity is None and where.waived is None:
        return
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
        found = f"f.device_id IN (SELECT x.device_id FROM device_findings x WHERE {' AND '.join(parts)})"  # noqa: S608
    else:
        parts.append(sql.waived if where.waived else f"NOT {sql.waived}")
        found = f"EXISTS (SELECT 1 FROM device_findings x WHERE x.device_id = f.device_id AND {' AND '.join(parts)})"  # noqa: S608
    chosen.conditions.append(found)


def devices(snapshot: FleetSnapshot, sql: FleetSql, query: DeviceQuery, chosen: Selection) -> DeviceList:
    """Returns a page of the selected devices."""
    severities = {rule: _RANKS[severity] for rule, severity in query.severities.items()}
    values = {**chosen.values, "severities": json.dumps(severities), "now": query.now}
    where = " AND ".join(chosen.conditions) or "1 = 1"
    # Every part of a statement is a constant of the adapters; every value is bound.
    ((total,),) = snapshot.rows(f"{sql.terms} SELECT count(*) FROM {chosen.source} WHERE {where}", values)  # noqa: S608
    sort, order, beyond = sql.sort(query.sort), *(("DESC", "<") if query.descending else ("ASC", ">"))
    if query.after is not None:
        values["after_value"], values["after_id"] = query.after
        is_by_id = query.sort is DeviceSort.ID
        keys = (
            f"f.device_id {beyond} :after_id"
            if is_by_id
            else f"({sort}, f.device_id) {beyond} (:after_value, :after_id)"
        )
        where = f"{where} AND {keys}"
    page: list[tuple[Any, ...]] = snapshot.rows(
        f"{sql.terms} SELECT f.device_id, {sort} FROM {chosen.source} WHERE {where}"  # noqa: S608
        f" ORDER BY 2 {order}, 1 {order} LIMIT :limit OFFSET :offset",
        {**values, "limit": query.limit + 1, "offset": query.offset},
    )
    shown = page[: query.limit]
    rows = snapshot.load([device_id for device_id, _ in shown])
    following: tuple[SortValue, str] | None = (shown[-1][1], shown[-1][0]) if len(page) > query.limit else None
    return DeviceList([rows[device_id] for device_id, _ in shown], total, following)


def summary(snapshot: FleetSnapshot, sql: FleetSql) -> FleetSummary:
    """Returns the counts of the fleet."""
    levels: dict[tuple[ContainmentLevel, bool], int] = {}
    presence: dict[bool | None, int] = {}
    waiting = 0
    for rank, stale, online, pending, count in snapshot.rows(sql.states, {}):
        key, seen = (_LEVELS[rank], bool(stale)), None if online is None else bool(online)
        levels[key] = levels.get(key, 0) + count
        presence[seen] = presence.get(seen, 0) + count
        waiting += count * pending
    ((unread,),) = snapshot.rows(sql.unread, {})
    rules = snapshot.rows("SELECT rule, result, count(*) FROM device_findings GROUP BY 1, 2", {})
    return FleetSummary(
        levels,
        presence,
        waiting,
        unread,
        snapshot.groups("class", "device_facets WHERE class <> ''"),
        snapshot.groups("tag", "device_tags"),
        {(rule, RuleResult(result)): count for rule, result, count in rules},
        snapshot.groups(f"substr(detail, 1, {MAX_REASON})", "device_findings WHERE result <> 'fail'"),
    )
