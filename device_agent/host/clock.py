"""The clock of the agent; everything else takes the time as an argument."""

import time
from datetime import UTC, datetime


class Clock:
    """The clocks of the machine; tests replace them."""

    def now(self) -> datetime:
        """Returns the aware wall-clock time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Returns monotonic seconds, which have no meaning outside this process."""
        return time.monotonic()

    def since_boot(self) -> float:
        """Returns seconds since the machine started, those in which it slept included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
