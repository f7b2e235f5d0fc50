"""Exponential back-off: the bounds of the wait before the next attempt. The randomness is the caller's."""

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

    def delay(self, attempt: int, chance: float) -> float:
        """Returns the wait before attempt `attempt` with full jitter; `chance` is drawn evenly from [0, 1)."""
        return self.ceiling(attempt) * chance
