"""What the collectors share: their protocol, the section names, gaps with reasons, counts and ages that rarely change.

This module loads no collector, so that the agent's main process can name the sections without the cost of collecting.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from device_agent.host.reading import READ_ERRORS, Reading, ReadingGap, error_reason
from device_agent.host.system import System
from schemas.base import MAX_GAPS

SECTIONS: Final = (
    *("os", "updates", "sources", "openssl", "keys", "certificates", "sockets", "services", "firewall", "access"),
    *("ssh", "disk", "mac", "logging", "lynis", "openscap", "intrusion", "integrity", "software"),
)
UNKNOWN: Final = "unknown"
NOT_APPLICABLE: Final = "notapplicable"
CHANGES_KEPT_SECONDS: Final = 24 * 3600.0
DAY_SECONDS: Final = 86_400
MAX_AGE_DAYS: Final = 36_500  # bound of every age in a report
_MAX_GAP_TEXT: Final = 160  # characters of a reason and of a source

T = TypeVar("T")


class Section(dict[str, Any]):
    """A JSON-ready section, made by `SectionBuilder`, so that no gap of a reader is lost; None for absent fields."""

    def __missing__(self, field: str) -> None:
        return None


class Collector(Protocol):
    """Collects one section of the report.

    Raises:
        FactsUnavailableError: reported as `unknown` with the reason.
        NotApplicableError: reported as `notapplicable` with the reason.
    """

    def __call__(self, system: System, /) -> Section:
        """Returns a JSON-ready section: lists complete and in a stable order, no value that changes by itself."""
        ...


@runtime_checkable
class StatefulCollector(Protocol):
    """A collector that compares with its previous scan; each scan may run in another process."""

    def state(self) -> object:
        """Returns what the next scan needs, JSON-ready."""
        ...

    def restore(self, state: Any, /) -> None:
        """Restores what `state` returned; anything else raises and changes nothing."""
        ...


def unavailable(state: str, reason: str) -> dict[str, str]:
    """Returns a section without facts."""
    return {"state": state, "reason": reason or "no reason was given"}


class SectionBuilder:
    """Builds a section in which a field with a gap has no value.

    A reader's result is set with `take`, which also takes its gaps; an error is recorded by `capture`. The entries that
    were read of a list with a gap go to `partial`, where a peer that ignores gaps does not mistake them for all.
    """

    def __init__(self, **fields: Any) -> None:
        self._fields: dict[str, Any] = fields
        self._gaps: dict[tuple[str, ReadingGap], None] = {}  # in the order of their occurrence, each once

    def set(self, **fields: Any) -> None:
        """Sets fields whose values are complete."""
        self._fields.update(fields)

    def take(self, field: str, reading: Reading[T]) -> T:
        """Sets a field to what a reader understood, with the reader's gaps; returns the value."""
        self._fields[field] = reading.value
        self.add_gaps(reading.gaps, field)
        return reading.value

    def gap(self, *fields: str, reason: str, source: str = "") -> None:
        """Records why fields are incomplete."""
        self.add_gaps((ReadingGap(reason, source),), *fields)

    def add_gaps(self, gaps: Iterable[ReadingGap], *fields: str) -> None:
        """Records gaps that make fields incomplete."""
        for gap in gaps:
            bounded = ReadingGap(gap.reason[:_MAX_GAP_TEXT] or "no reason was given", gap.source[:_MAX_GAP_TEXT])
            self._gaps.update(dict.fromkeys((field, bounded) for field in fields))

    @contextmanager
    def capture(self, *fields: str, source: str = "") -> Iterator[None]:
        """Records an error of the block as a gap in fields instead of raising it."""
        try:
            yield
        except READ_ERRORS as e:
            self.gap(*fields, reason=error_reason(e), source=source)

    def __getitem__(self, field: str) -> Any:
        return self._fields[field]

    def build(self) -> Section:
        """Returns the section; of too many gaps, every incomplete field keeps at least one."""
        fields, partial = dict(self._fields), {}
        ordered: dict[tuple[str, ReadingGap], None] = {}
        for field in dict.fromkeys(field for field, _ in self._gaps):
            ordered[next(gap for gap in self._gaps if gap[0] == field)] = None
            value = fields.pop(field, None)
            if isinstance(value, (list, tuple)) and value:
                partial[field] = list(value)
        ordered.update(self._gaps)
        section = Section(state="ok", **fields)
        if partial:
            section["partial"] = partial
        section["gaps"] = [
            {"fact": field, "reason": gap.reason, **({"source": gap.source} if gap.source else {})}
            for field, gap in list(ordered)[:MAX_GAPS]
        ]
        return section


def round_to_magnitude(count: int) -> int:
    """Rounds down to 0, 1, 10, 100, ..., so that a slowly growing count rarely changes the report's digest."""
    return 10 ** (len(str(count)) - 1) if count > 0 else 0


def days_between(earlier: float, later: float) -> int:
    """Counts calendar days (UTC) between two Unix times, so that ages change at midnight and at most once a day."""
    return int(later // DAY_SECONDS) - int(earlier // DAY_SECONDS)


def age_days(then: datetime, now: float) -> int:
    """Counts elapsed whole days up to `now` (Unix time), between 0 and `MAX_AGE_DAYS`."""
    return min(MAX_AGE_DAYS, max(0, int((now - then.timestamp()) // DAY_SECONDS)))


class ChangeTracker:
    """Reports the last additions and removals for a day; none after the first scan.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._previous: frozenset[str] | None = None
        self._change: tuple[list[str], list[str]] = ([], [])
        self._changed_at = 0.0

    def state(self) -> object:
        """Returns the items of the last scan, the last change and its time."""
        previous = None if self._previous is None else sorted(self._previous)
        return [previous, list(self._change), self._changed_at]

    def restore(self, state: Any) -> None:
        """Restores what `state` returned."""
        previous, (added, removed), changed_at = state
        self._previous = None if previous is None else frozenset(previous)
        self._change, self._changed_at = (added, removed), changed_at

    def update(self, items: Sequence[str]) -> tuple[list[str], list[str]]:
        """Takes the items of this scan; returns the added and the removed ones, both sorted."""
        current, previous = frozenset(items), self._previous
        self._previous = current
        if previous is not None and current != previous:
            self._change = (sorted(current - previous), sorted(previous - current))
            self._changed_at = self._clock()
        elif self._clock() - self._changed_at >= CHANGES_KEPT_SECONDS:
            self._change = ([], [])
        return self._change
