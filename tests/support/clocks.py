"""Clocks that stand still until a test moves them."""

from datetime import UTC, datetime
from typing import Final

from device_agent.host.clock import Clock

START: Final = 1_800_000_000.0  # Unix seconds


class ManualClock:
    """The controller's clock. `at`: time that passes; `offset`: what was added to the wall clock alone."""

    def __init__(self, at: float = START) -> None:
        self.at = at
        self.offset = 0.0

    def now(self) -> float:
        return self.at + self.offset

    def monotonic(self) -> float:
        return self.at - START


class ManualAgentClock(Clock):
    """The agent's clock, at Unix seconds; `asleep`: those of them in which the machine slept."""

    def __init__(self, at: float = START) -> None:
        self.at = at
        self.asleep = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at - self.asleep

    def since_boot(self) -> float:
        return self.at
