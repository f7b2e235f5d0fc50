"""What many collectors need to look honestly: bounded reading, gaps that say why, counts that hold still, changes."""

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError

CHANGES_KEPT_SECONDS: Final = 24 * 3600.0
_CLOSED: Final = frozenset({errno.EACCES, errno.EPERM})


def reason_of(error: Exception) -> str:
    """Why something could not be looked at, in a few words."""
    if isinstance(error, OSError):
        if error.errno in _CLOSED:
            return "needs root"
        return error.strerror or type(error).__name__
    return str(error) or type(error).__name__


class GapRecorder:
    """Gathers what could not be found out: `field: reason`, so that one closed file costs one field."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @contextmanager
    def told(self, field: str) -> Iterator[None]:
        """What goes wrong inside leaves the field as it was, and its reason here."""
        try:
            yield
        except (OSError, FactsUnavailableError, ExecuteError, ValueError, KeyError) as e:
            self.add(field, reason_of(e))

    def add(self, field: str, reason: str) -> None:
        """Say why a field has no value."""
        self._reasons.setdefault(field, reason)

    def listed(self) -> list[str]:
        """The gaps, sorted."""
        return [f"{field}: {reason}" for field, reason in sorted(self._reasons.items())]


def coarse(count: int) -> int:
    """The count rounded down to 0, 1, 10, 100, ..., so that an unchanged state keeps its digest."""
    return 10 ** (len(str(count)) - 1) if count > 0 else 0


class ChangeTracker:
    """What came and what went with the last change, told for a day; nothing after the first look.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: frozenset[str] | None = None
        self._change: tuple[list[str], list[str]] = ([], [])
        self._at = 0.0

    def remembered(self) -> object:
        """What was there, and the last change."""
        return self._known, self._change, self._at

    def recall(self, memory: Any) -> None:
        """Go on from there."""
        self._known, self._change, self._at = memory

    def seen(self, now: Sequence[str]) -> tuple[list[str], list[str]]:
        """Take what is there now; what came and what went, both sorted."""
        current, before = frozenset(now), self._known
        self._known = current
        if before is not None and current != before:
            self._change = (sorted(current - before), sorted(before - current))
            self._at = self._clock()
        elif self._clock() - self._at >= CHANGES_KEPT_SECONDS:
            self._change = ([], [])
        return self._change
