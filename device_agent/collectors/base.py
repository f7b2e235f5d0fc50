"""What the collectors share: their protocol, the section names, gaps with reasons, counts and ages that rarely change.

This module loads no collector, so that the agent's main process can name the sections without the cost of collecting.
"""

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Protocol, runtime_checkable

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError
from device_agent.host.system import System

SECTIONS: Final = (
    *("os", "updates", "sources", "openssl", "keys", "certificates", "sockets", "services", "firewall", "access"),
    *("ssh", "disk", "mac", "logging", "lynis", "openscap", "intrusion", "integrity", "software"),
)
UNKNOWN: Final = "unknown"
NOT_APPLICABLE: Final = "notapplicable"
CHANGES_KEPT_SECONDS: Final = 24 * 3600.0
DAY_SECONDS: Final = 86_400
MAX_AGE_DAYS: Final = 36_500  # bound of every age in a report
_PERMISSION_ERRORS: Final = frozenset({errno.EACCES, errno.EPERM})

Section = Mapping[str, Any]


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


def error_reason(error: Exception) -> str:
    """Returns the cause of an error in a few words."""
    if isinstance(error, OSError):
        if error.errno in _PERMISSION_ERRORS:
            return "needs root"
        return error.strerror or type(error).__name__
    return str(error) or type(error).__name__


class GapRecorder:
    """Records why a field has no value (`field: reason`), so that one unreadable file costs one field only."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @contextmanager
    def capture(self, field: str) -> Iterator[None]:
        """Records an error of the block as the reason of `field` instead of raising it."""
        try:
            yield
        except (OSError, FactsUnavailableError, ExecuteError, ValueError, KeyError) as e:
            self.add(field, error_reason(e))

    def add(self, field: str, reason: str) -> None:
        """Records a reason; the first one of a field is kept."""
        self._reasons.setdefault(field, reason)

    def as_list(self) -> list[str]:
        """Returns the gaps, sorted."""
        return [f"{field}: {reason}" for field, reason in sorted(self._reasons.items())]


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
