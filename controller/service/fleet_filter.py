"""`FleetQueries` over the devices in memory, for a store that does not answer queries itself."""

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from controller.domain.device import Device, RuleState
from controller.domain.policy.findings import RuleResult, Severity
from controller.ports.fleet_queries import (
    MAX_GROUPS,
    MAX_PAGE,
    MAX_REASON,
    DeviceFilter,
    DeviceList,
    DeviceQuery,
    DeviceSort,
    FleetQueries,
    FleetSummary,
    SortValue,
)
from controller.service.fleet_state import FleetState

_AT_ONCE: Final = 1000  # devices per iteration of the event loop
_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity, 1)}


class FleetFilter(FleetQueries):
    """Visits every device for each query, a slice at a time."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet

    async def devices(self, query: DeviceQuery) -> DeviceList:
        if not 1 <= query.limit <= MAX_PAGE or query.offset < 0:
            raise ValueError(f"a page has between 1 and {MAX_PAGE} devices and starts at 0 or later")
        found: list[tuple[SortValue, str]] = [
            (_sort_value(device, query), device.device_id)
            async for device in self._every()
            if self._matches(device, query)
        ]
        after: Any = query.after
        descending = query.descending
        left = [key for key in found if after is None or (key < after if descending else key > after)]
        pick = heapq.nlargest if descending else heapq.nsmallest
        page = pick(query.offset + query.limit + 1, left)[query.offset :]
        shown = page[: query.limit]
        devices = [self._fleet.devices[device_id] for _, device_id in shown]
        return DeviceList(devices, len(found), shown[-1] if len(page) > query.limit else None)

    async def summary(self) -> FleetSummary:
        levels: Counter[Any] = Counter()
        online: Counter[bool | None] = Counter()
        classes, tags, reasons = Counter[str](), Counter[str](), Counter[str]()
        rules: Counter[Any] = Counter()
        pending = unread = 0
        async for device in self._every():
            levels[device.level, device.stale] += 1
            online[device.online] += 1
            pending += device.pending is not None
            unread += device.case is not None and bool(device.case.unread)
            classes.update([device.device_class] if device.device_class else ())
            tags.update(device.tags)
            rules.update((key, state.result) for key, state in device.rules.items())
            reasons.update(
                state.detail[:MAX_REASON] for state in device.rules.values() if state.result is not RuleResult.FAIL
            )
        return FleetSummary(levels, online, pending, unread, _most(classes), _most(tags), rules, _most(reasons))

    async def _every(self) -> AsyncIterator[Device]:
        for number, device in enumerate(list(self._fleet.devices.values())):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            yield device

    def _matches(self, device: Device, query: DeviceQuery) -> bool:
        where = query.where
        pairs: tuple[tuple[object, object], ...] = (
            (where.level, device.level),
            (where.contained, device.case is not None),
            (where.pending, device.pending is not None),
            (where.stale, device.stale),
            (where.online, device.online),
            (where.device_class, device.device_class),
            (where.agent, device.agent),
        )
        return (
            all(wanted is None or wanted == is_so for wanted, is_so in pairs)
            and (where.tag is None or where.tag in device.tags)
            and (where.seen_before is None or device.last_seen < where.seen_before)
            and (where.search is None or _has_words(device, where.search.casefold()))
            and (_asks_no_rule(where) or any(self._is_wanted(device, *one, query) for one in device.rules.items()))
        )

    def _is_wanted(self, device: Device, key: str, state: RuleState, query: DeviceQuery) -> bool:
        where = query.where
        if state.result is not (where.result or RuleResult.FAIL):
            return False
        if where.rule is not None and where.rule not in (key, key.rpartition("/")[2]):
            return False
        if where.severity is not None and _RANKS[where.severity] > _rank(key, query.severities):
            return False
        if where.waived is None:
            return True
        is_failing = state.result is RuleResult.FAIL
        waiver = self._fleet.guards.waivers.covering(key, device, query.now) if is_failing else None
        return where.waived is (waiver is not None)


def _asks_no_rule(where: DeviceFilter) -> bool:
    return where.rule is None and where.result is None and where.severity is None and where.waived is None


def _has_words(device: Device, wanted: str) -> bool:
    return any(wanted in text.casefold() for text in (device.device_id, device.device_class, *device.tags))


def _rank(key: str, severities: Mapping[str, Severity]) -> int:
    severity = severities.get(key)
    return 0 if severity is None else _RANKS[severity]


def _sort_value(device: Device, query: DeviceQuery) -> SortValue:
    match query.sort:
        case DeviceSort.ID:
            return device.device_id
        case DeviceSort.LAST_SEEN:
            return device.last_seen
        case DeviceSort.LEVEL:
            return device.level.rank
        case DeviceSort.CLASS:
            return device.device_class
        case DeviceSort.FAILING:
            return sum(state.result is RuleResult.FAIL for state in device.rules.values())
        case DeviceSort.SEVERITY:
            failing = (key for key, state in device.rules.items() if state.result is RuleResult.FAIL)
            return max((_rank(key, query.severities) for key in failing), default=0)


def _most(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MAX_GROUPS])
