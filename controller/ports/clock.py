"""Time and ids, as arguments of everything that depends on them."""

from typing import Protocol


class Clock(Protocol):
    """Wall-clock and monotonic time in seconds."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for durations."""
        ...


class IdGenerator(Protocol):
    """Identifiers that sort by the time of their creation."""

    def new(self, now: float) -> str:
        """A new id of 26 characters (ULID)."""
        ...
