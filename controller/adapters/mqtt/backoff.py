"""Waits between connection attempts, with full jitter: clients of a restarted broker spread out."""

from collections.abc import Callable
from typing import Final

from controller.adapters.mqtt.reason_codes import DisconnectKind
from schemas.backoff import Backoff

STABLE_SECONDS: Final = 10.0  # a connection that lasted so long resets the back-off


class ReconnectBackoff:
    """Counts failed connections in a row and draws the wait before the next one."""

    def __init__(self, backoff: Backoff, refused: float, rand: Callable[[], float]) -> None:
        """`refused`: about how long to wait, in seconds, after the broker refused; `rand` draws from [0, 1)."""
        self._backoff = backoff
        self._refused = refused
        self._rand = rand
        self._failures = 0

    def reset_after(self, seconds: float) -> None:
        """Resets the back-off if the connection that has ended lasted long enough."""
        if seconds >= STABLE_SECONDS:
            self._failures = 0

    @property
    def is_failing(self) -> bool:
        """Whether an attempt failed since the last stable connection."""
        return self._failures > 0

    def next(self, kind: DisconnectKind) -> float:
        """Returns the seconds to wait after this end of a connection."""
        if kind in {DisconnectKind.REFUSED, DisconnectKind.TAKEN_OVER}:
            return self._refused * (0.5 + 0.5 * self._rand())
        seconds = self._backoff.delay(self._failures, self._rand())
        self._failures += 1
        return seconds
