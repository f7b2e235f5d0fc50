"""Everything that was seen, by whom and when: the only thing that a step of the story may believe."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from controller.demo.options import DemoError

MAX_SIGHTS: Final = 50_000  # kept for each device; older ones go
ARRIVED: Final = "arrived"
"""A message of the fleet's own work reached the bystander: `n`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SimulatorObservation:
    """One thing seen. `moment`: monotonic seconds, the same clock in every process of this machine."""

    device: str
    seen: str
    moment: float
    data: Mapping[str, Any] = field(default_factory=dict)


class ObservationLog:
    """Sights in the order they came in, and a way to wait for one."""

    def __init__(self) -> None:
        self._sights: defaultdict[str, deque[SimulatorObservation]] = defaultdict(lambda: deque(maxlen=MAX_SIGHTS))
        self._news = asyncio.Event()
        self._broken = ""

    def add(self, sight: SimulatorObservation) -> None:
        """Write one down; on the event loop's thread."""
        self._sights[sight.device].append(sight)
        self._news.set()

    def broken(self, why: str) -> None:
        """Nothing more will be seen: whoever waits learns why."""
        self._broken = self._broken or why
        self._news.set()

    def of(self, device: str, seen: str, *, since: float = 0.0, **data: Any) -> Iterator[SimulatorObservation]:
        """What was seen at a device from `since` on, with these values in its data."""
        for sight in self._sights[device]:
            if sight.seen == seen and sight.moment >= since and all(sight.data.get(k) == v for k, v in data.items()):
                yield sight

    def first(self, device: str, seen: str, *, since: float = 0.0, **data: Any) -> SimulatorObservation | None:
        """The first of them."""
        return next(self.of(device, seen, since=since, **data), None)

    async def until(self, look: Callable[[], T | None], what: str, seconds: float) -> T:
        """Wait until `look` finds something, looking again with everything new.

        Raises:
            DemoError: it did not within `seconds`; `what` says what was waited for.
        """
        try:
            async with asyncio.timeout(seconds):
                while (found := look()) is None:
                    if self._broken:
                        raise DemoError(f"not seen: {what}; {self._broken}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as e:
            raise DemoError(f"not seen within {seconds:g} s: {what}") from e
        return found

    def last_words(self, device: str, most: int = 6) -> str:
        """The latest things seen at a device, for whoever asks what happened instead."""
        lines = [f"{sight.seen} {_brief(sight.data)}".strip() for sight in list(self._sights[device])[-most:]]
        return "; ".join(lines) or "nothing"


def _brief(data: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in data.items() if value not in (None, "") and key != "topic")
