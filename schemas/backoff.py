"""Exponential back-off with full jitter; the caller provides the random number."""

from dataclasses import dataclass
from typing import Final

_MAX_DOUBLINGS: Final = 30  # every cap is reached by then


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first` up to `cap`, in seconds."""

    first: float = 1.0
    cap: float = 60.0

    def ceiling(self, attempt: int) -> float:
        """Returns the longest wait before attempt number `attempt` (the first is 0)."""
        return min(self.cap, self.first * float(2 ** min(attempt, _MAX_DOUBLINGS)))

    def delay(self, attempt: int, jitter: float) -> float:
        """Returns the wait before attempt `attempt`; `jitter` is a uniform random number in [0, 1)."""
        return self.ceiling(attempt) * jitter
