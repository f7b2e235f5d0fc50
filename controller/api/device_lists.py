"""Lists of devices: filters, sorting and pages, and how a query says them."""

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends, Query

from controller.api.context import FleetDep, QueriesDep
from controller.api.errors import ApiError, seconds_of
from controller.api.fields import MAX_WORDS, NextKey, PageLimit, PageOffset, TextFilter, View
from controller.api.views import DeviceSummary, device_summary
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel
from controller.ports.fleet_queries import DeviceFilter, DeviceQuery, DeviceSort, FleetQueries, SortValue
from controller.service.fleet_state import FleetState

MAX_KEY: Final = 512  # characters of a page's key
_MAX_NUMBER: Final = 2**53
_REVERSE: Final = "-"
_SORTS: Final = "|".join(DeviceSort)

DeviceSortText = Annotated[
    str, Query(pattern=rf"^{_REVERSE}?({_SORTS})$", description=f"one of {_SORTS}; with `-` before it in reverse")
]
DevicePageKey = Annotated[str | None, Query(max_length=MAX_KEY, description="`next` of the page before")]


class DevicePage(View):
    """`total` counts all matches. `offset` is for tables; programs that want every row go on `after` the last one."""

    items: tuple[DeviceSummary, ...]
    total: int
    limit: int
    offset: int
    next: NextKey


async def device_filter(
    level: ContainmentLevel | None = None,
    stale: bool | None = None,
    online: bool | None = None,
    pending: Annotated[bool | None, Query(description="a guard holds its containment back")] = None,
    device_class: Annotated[str | None, Query(alias="class", max_length=MAX_WORDS)] = None,
    tag: Annotated[str | None, Query(max_length=MAX_WORDS)] = None,
    agent: Annotated[str | None, Query(max_length=MAX_WORDS, description="version of its agent")] = None,
    seen_before: Annotated[datetime | None, Query(description="not seen since; a time with its zone")] = None,
    search: Annotated[TextFilter, Query(description="part of the id, class or a tag")] = None,
    rule: Annotated[TextFilter, Query(description="fails this rule: policy/rule or the rule alone")] = None,
    result: Annotated[RuleResult | None, Query(description="of the rule, instead of fail")] = None,
    severity: Annotated[Severity | None, Query(description="of the rule, at least")] = None,
    waived: Annotated[bool | None, Query(description="whether a waiver covers the rule")] = None,
) -> DeviceFilter:
    """Reads a filter from the query.

    Raises:
        ApiError: 422, a time without its zone.
    """
    return DeviceFilter(
        level=level,
        pending=pending,
        stale=stale,
        online=online,
        device_class=device_class,
        tag=tag,
        agent=agent,
        seen_before=seconds_of("seen_before", seen_before),
        search=search or None,
        rule=rule or None,
        result=result,
        severity=severity,
        waived=waived,
    )


FilterDep = Annotated[DeviceFilter, Depends(device_filter)]


async def _listing(
    fleet: FleetDep,
    queries: QueriesDep,
    sort: DeviceSortText = DeviceSort.ID,
    limit: PageLimit = 100,
    offset: PageOffset = 0,
    after: DevicePageKey = None,
) -> "DeviceListing":
    return DeviceListing(fleet, queries, sort, limit, offset, after)


class DeviceListing:
    """A page of a list, as the query asks for it."""

    def __init__(
        self, fleet: FleetState, queries: FleetQueries, sort: str, limit: int, offset: int, after: str | None
    ) -> None:
        self._fleet, self._queries = fleet, queries
        self._sort, self._limit, self._offset = sort, limit, offset
        self._after = None if after is None else _parse_key(sort, after)

    async def page(self, where: DeviceFilter) -> DevicePage:
        """Returns the page of the devices that match."""
        query = query_of(self._fleet, where, self._sort, self._limit, self._offset, self._after)
        found = await self._queries.devices(query)
        return DevicePage(
            items=tuple(map(device_summary, found.devices)),
            total=found.total,
            limit=self._limit,
            offset=self._offset,
            next=None if found.following is None else _key(self._sort, found.following),
        )


ListingDep = Annotated[DeviceListing, Depends(_listing)]


def query_of(
    fleet: FleetState,
    where: DeviceFilter,
    sort: str,
    limit: int,
    offset: int = 0,
    after: tuple[SortValue, str] | None = None,
) -> DeviceQuery:
    """Returns a query with the rules in force and the waivers of this moment."""
    severities = {key: rule.severity for key, rule in fleet.policies.rules.items()}
    by = DeviceSort(sort.removeprefix(_REVERSE))
    return DeviceQuery(
        where, by, sort.startswith(_REVERSE), after, limit, offset, severities=severities, now=fleet.clock.now()
    )


def _key(sort: str, after: tuple[SortValue, str]) -> str:
    """A key by id is the id, as it always was; another has the sort that it belongs to."""
    if sort.removeprefix(_REVERSE) == DeviceSort.ID:
        return after[1]
    return base64.urlsafe_b64encode(json.dumps([sort, *after]).encode()).decode()


def _parse_key(sort: str, text: str) -> tuple[SortValue, str]:
    if sort.removeprefix(_REVERSE) == DeviceSort.ID:
        return text, text
    is_text = sort.removeprefix(_REVERSE) == DeviceSort.CLASS
    try:
        match json.loads(base64.b64decode(text, altchars=b"-_", validate=True)):
            case [str(of), str(value), str(device_id)] if of == sort and is_text:
                f"{value}{device_id}".encode()  # no half of a pair of UTF-16, which no store takes
                return value, device_id
            case [str(of), int() | float() as value, str(device_id)] if of == sort and not is_text:
                device_id.encode()
                if abs(value) <= _MAX_NUMBER:
                    return value, device_id
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise ApiError(422, "invalid", "query.after: is not `next` of a page with this `sort`")
