"""The time that an order has: a clock that is set meanwhile neither ends it as late nor makes it longer."""

from datetime import datetime
from typing import Final

from device_agent.host.clock import Clock
from device_agent.updates.errors import UpdateError
from schemas.updates import UpdateRefusalCode

# What a clock ahead of the time looks like: late orders, and metadata or certificates of servers that have expired.
_OF_TIME: Final = frozenset({UpdateRefusalCode.DEADLINE, UpdateRefusalCode.FREEZE, UpdateRefusalCode.UNREACHABLE})


class OrderTime:
    """The time until the deadline of an order, by the monotonic clock from the moment at which it begins or goes on.

    Once the wall clock is past the deadline before that, one of the two is wrong: no step is begun any more, and the
    device names its clock.
    """

    def __init__(self, deadline: datetime, clock: Clock) -> None:
        self.deadline = deadline
        self._clock = clock
        self.start()

    def start(self) -> None:
        """Counts from now on: before, the wall clock was not set."""
        self._end = self._clock.monotonic() + self._wall_seconds_left

    @property
    def seconds_left(self) -> float:
        """Seconds in which a step may still begin; not positive where none are left."""
        return min(self.monotonic_seconds_left, self._wall_seconds_left)

    @property
    def monotonic_seconds_left(self) -> float:
        """Seconds for a step that modified the system; not positive where none are left."""
        return self._end - self._clock.monotonic()

    @property
    def _wall_seconds_left(self) -> float:
        return (self.deadline - self._clock.now()).total_seconds()

    def explain(self, error: UpdateError) -> UpdateError:
        """Returns the failure of an order that modified nothing: of the clock, if that may be the only reason."""
        left = self.monotonic_seconds_left
        if error.code not in _OF_TIME or not self._wall_seconds_left <= 0 < left:
            return error
        clock = f"this device's clock says {self._clock.now():%Y-%m-%d %H:%M}"
        text = f"{error}: {clock}, and was set, or the device slept, since the order began: {left:.0f} s are left of it"
        return UpdateError(UpdateRefusalCode.CLOCK, text)
