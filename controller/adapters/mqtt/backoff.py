"""How long to wait before the next attempt: full jitter, so that many clients of a restarted broker spread out."""

from collections.abc import Callable
from typing import Final

from controller.adapters.mqtt.reason_codes import DisconnectKind

_MAX_DOUBLINGS: Final = 20
# A connection that lived this long was a good one: the next trouble starts from the floor again.
STABLE_SECONDS: Final = 10.0


class Backoff:
    """Counts troubles in a row; the randomness is the caller's."""

    def __init__(self, floor: float, ceiling: float, refused: float, rand: Callable[[], float]) -> None:
        """Take the limits in seconds, and `rand` that gives numbers in [0, 1)."""
        self._floor = floor
        self._ceiling = ceiling
        self._refused = refused
        self._rand = rand
        self._troubles = 0

    def lived(self, seconds: float) -> None:
        """Tell how long the connection lasted that has just ended."""
        if seconds >= STABLE_SECONDS:
            self._troubles = 0

    @property
    def in_trouble(self) -> bool:
        """Whether there was trouble since a connection last lived long."""
        return self._troubles > 0

    def next(self, kind: DisconnectKind) -> float:
        """Seconds to wait after this trouble."""
        if kind in {DisconnectKind.REFUSED, DisconnectKind.TAKEN_OVER}:
            return self._refused * (0.5 + 0.5 * self._rand())
        reach = min(self._ceiling, self._floor * 2.0 ** min(self._troubles, _MAX_DOUBLINGS))
        self._troubles += 1
        return reach * self._rand()
