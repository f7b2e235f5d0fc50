"""Where the agent gets its time from, so that everything else takes it as an argument."""

import time
from datetime import UTC, datetime


class Clock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Wall-clock time, aware."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back, of no meaning outside this process."""
        return time.monotonic()
