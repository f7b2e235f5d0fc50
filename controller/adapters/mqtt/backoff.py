"""How long to wait before the next attempt: full jitter, so that many clients of a restarted broker spread out."""

from collections.abc import Callable
from typing import Final

from controller.adapters.mqtt.reason_codes import DisconnectKind
from schemas.backoff import Backoff

# A connection that lived this long was a good one: the next trouble starts from the floor again.
STABLE_SECONDS: Final = 10.0


class ReconnectBackoff:
    """Counts failed connections in a row and draws the wait before the next one."""

    def __init__(self, backoff: Backoff, refused: float, rand: Callable[[], float]) -> None:
        """`refused`: about how long to wait, in seconds, after the broker said no; `rand` draws from [0, 1)."""
        self._backoff = backoff
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
        seconds = self._backoff.delay(self._troubles, self._rand())
        self._troubles += 1
        return seconds
