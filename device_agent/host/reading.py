"""What a reader of a foreign format returns: what it understood, and what it did not."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError

T = TypeVar("T")
Value_co = TypeVar("Value_co", covariant=True)
NEEDS_ROOT: Final = "needs root"
_PERMISSION_ERRORS: Final = frozenset({errno.EACCES, errno.EPERM})
READ_ERRORS: Final = (OSError, FactsUnavailableError, ExecuteError, ValueError, KeyError)


def error_reason(error: Exception) -> str:
    """Returns the cause of an error in a few words."""
    if isinstance(error, OSError):
        if error.errno in _PERMISSION_ERRORS:
            return NEEDS_ROOT
        return error.strerror or type(error).__name__
    return str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class ReadingGap:
    """Something not understood or not read; `source` is the file, line or program."""

    reason: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Reading(Generic[Value_co]):
    """The value as far as it was understood; without gaps it is complete."""

    value: Value_co
    gaps: tuple[ReadingGap, ...] = ()


class GapRecorder:
    """Collects the gaps of one reader."""

    def __init__(self) -> None:
        self._gaps: dict[ReadingGap, None] = {}  # in the order of their occurrence, each once

    def add(self, reason: str, source: str = "") -> None:
        """Adds a gap."""
        self._gaps[ReadingGap(reason, source)] = None

    @contextmanager
    def capture(self, source: str = "") -> Iterator[None]:
        """Adds an error of the block as a gap instead of raising it."""
        try:
            yield
        except READ_ERRORS as e:
            self.add(error_reason(e), source)

    def take(self, reading: Reading[T]) -> T:
        """Adds the gaps of another reading; returns its value."""
        self._gaps.update(dict.fromkeys(reading.gaps))
        return reading.value

    def complete(self, value: T) -> Reading[T]:
        """Returns the value with all gaps."""
        return Reading(value, tuple(self._gaps))

    @property
    def gaps(self) -> tuple[ReadingGap, ...]:
        """All gaps so far."""
        return tuple(self._gaps)
