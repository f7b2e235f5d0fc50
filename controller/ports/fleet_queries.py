"""Lists and counts of the fleet, answered from stored rows: every controller on one store answers the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from controller.domain.device import Device
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import ControllerError

MAX_PAGE: Final = 1000  # devices
MAX_GROUPS: Final = 100  # classes, tags, and reasons of a summary: those with the most devices
MAX_REASON: Final = 200  # characters of a reason in a summary
QUERY_SECONDS: Final = 5.0  # after which a query is ended


class QueryTooLongError(ControllerError):
    """A query took longer than `QUERY_SECONDS` and was ended."""


class DeviceSort(StrEnum):
    """What a list is sorted by; equal ones by id.

    `severity`: the worst severity among the failing rules that are in force. `failing`: how many rules fail.
    """

    ID = "id"
    LAST_SEEN = "last_seen"
    LEVEL = "level"
    SEVERITY = "severity"
    FAILING = "failing"
    CLASS = "class"


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """What the devices of a list have in common; `None` is any.

    `rule` (`policy/rule` or the rule alone), `result`, `severity` (at least) and `waived` describe one rule that the
    device does not satisfy; where only others of the four are given, `result` is `fail`. `seen_before`: Unix seconds.
    `search`: part of id, class or a tag, in any case.
    """

    level: ContainmentLevel | None = None
    contained: bool | None = None
    pending: bool | None = None
    stale: bool | None = None
    online: bool | None = None
    device_class: str | None = None
    tag: str | None = None
    agent: str | None = None
    seen_before: float | None = None
    search: str | None = None
    rule: str | None = None
    result: RuleResult | None = None
    severity: Severity | None = None
    waived: bool | None = None


SortValue = str | int | float


@dataclass(frozen=True, slots=True)
class DeviceQuery:
    """A page of a list. `after`: sort value and id of the last device of the page before; `offset` rows are skipped.

    `severities`: of each rule in force. `now` (Unix seconds) decides which waivers are in force.
    """

    where: DeviceFilter = DeviceFilter()
    sort: DeviceSort = DeviceSort.ID
    descending: bool = False
    after: tuple[SortValue, str] | None = None
    limit: int = 100
    offset: int = 0
    severities: Mapping[str, Severity] = field(default_factory=dict)
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceList:
    """`total` counts all matches, whatever the page; `following`: the `after` of the next page, if there is one."""

    devices: Sequence[Device]
    total: int
    following: tuple[SortValue, str] | None


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """Counts of devices. `levels`: by containment level and whether stale. `rules`: by rule and result, not satisfied.

    `unread`: contained devices of which only nodes that cannot be read are not proven. `reasons`: why rules are unknown
    or could not be evaluated. `classes`, `tags` and `reasons` have at most
    `MAX_GROUPS` entries each.
    """

    levels: Mapping[tuple[ContainmentLevel, bool], int]
    online: Mapping[bool | None, int]
    pending: int
    unread: int
    classes: Mapping[str, int]
    tags: Mapping[str, int]
    rules: Mapping[tuple[str, RuleResult], int]
    reasons: Mapping[str, int]

    @property
    def devices(self) -> int:
        return sum(self.levels.values())


class FleetQueries(Protocol):
    """Reads committed rows only.

    Raises:
        StoreError: closed, or the store cannot be read.
        QueryTooLongError: each query has a time limit.
    """

    async def devices(self, query: DeviceQuery) -> DeviceList:
        """A page of devices.

        Raises:
            ValueError: `limit` is not between 1 and `MAX_PAGE`, or `offset` is negative.
        """
        ...

    async def summary(self) -> FleetSummary: ...
