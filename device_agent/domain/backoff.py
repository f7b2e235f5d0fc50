"""How long to wait before the next attempt: doubling up to a cap, with full jitter so that no fleet returns as one."""

from dataclasses import dataclass
from typing import Final

_MAX_DOUBLINGS: Final = 30  # beyond it every cap is long reached, and the number would only grow


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds of the wait, in seconds."""

    first: float = 1.0
    cap: float = 60.0

    def ceiling(self, attempt: int) -> float:
        """The longest wait before attempt number `attempt` (the first is 0)."""
        return min(self.cap, self.first * float(2 ** min(attempt, _MAX_DOUBLINGS)))

    def delay(self, attempt: int, chance: float) -> float:
        """The wait before attempt `attempt`, with `chance` drawn evenly from [0, 1)."""
        return self.ceiling(attempt) * chance


RECONNECT: Final = Backoff(first=1.0, cap=60.0)
# A connection that lasted this long was a good one, and the next loss starts again from the shortest wait.
STEADY_SECONDS: Final = 30.0
