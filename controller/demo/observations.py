"""Observations at devices and at the subscriber: the only evidence that a step accepts."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from controller.demo.options import DemoError

MAX_OBSERVATIONS: Final = 50_000  # per device; the oldest are dropped
ARRIVED: Final = "arrived"
"""A telemetry message reached the subscriber: `n`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SimulatorObservation:
    """`moment`: monotonic seconds, the same clock in every process of this machine."""

    device: str
    kind: str
    moment: float
    data: Mapping[str, Any] = field(default_factory=dict)


class ObservationLog:
    """Observations by device, in the order of their arrival."""

    def __init__(self) -> None:
        self._observations: defaultdict[str, deque[SimulatorObservation]] = defaultdict(
            lambda: deque(maxlen=MAX_OBSERVATIONS)
        )
        self._changed = asyncio.Event()
        self._ended = ""

    def add(self, observation: SimulatorObservation) -> None:
        """Adds one; on the event loop's thread."""
        self._observations[observation.device].append(observation)
        self._changed.set()

    def end(self, reason: str) -> None:
        """Lets every present and later `until` fail with the first reason."""
        self._ended = self._ended or reason
        self._changed.set()

    def of(self, device: str, kind: str, *, since: float = 0.0, **data: Any) -> Iterator[SimulatorObservation]:
        """Observations of a device from `since` on whose data have these values."""
        for one in self._observations[device]:
            if one.kind == kind and one.moment >= since and all(one.data.get(k) == v for k, v in data.items()):
                yield one

    def first(self, device: str, kind: str, *, since: float = 0.0, **data: Any) -> SimulatorObservation | None:
        return next(self.of(device, kind, since=since, **data), None)

    async def until(self, find: Callable[[], T | None], what: str, seconds: float, device: str = "") -> T:
        """Waits until `find` returns something; it is called after every new observation.

        Raises:
            DemoError: the time is over, with the latest observations of `device`; or a process ended.
        """
        try:
            async with asyncio.timeout(seconds):
                while (found := find()) is None:
                    if self._ended:
                        raise DemoError(f"not observed: {what}; {self._ended}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as e:
            instead = f"; the latest there: {self.latest(device)}" if device else ""
            raise DemoError(f"not observed within {seconds:g} s: {what}{instead}") from e
        return found

    def latest(self, device: str, count: int = 6) -> str:
        """The latest observations of a device, in words."""
        lines = [f"{one.kind} {_brief(one.data)}".strip() for one in list(self._observations[device])[-count:]]
        return "; ".join(lines) or "nothing"


def _brief(data: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in data.items() if value not in (None, "") and key != "topic")
