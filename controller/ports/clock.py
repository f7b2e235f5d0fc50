"""Time, randomness and ids come in through here, so that decisions can be tested without waiting."""

from typing import Protocol


class Clock(Protocol):
    """Wall-clock and monotonic time in seconds."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, for measuring."""
        ...


class IdGenerator(Protocol):
    """Identifiers that sort by the time they were made."""

    def new(self, now: float) -> str:
        """A new id of 26 characters (ULID), not given before."""
        ...
