"""What simulated devices reported about themselves, in order, and waiting for an observation."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Observation:
    """`moment`: monotonic seconds, the same clock in every process of this machine."""

    device: str
    kind: str
    moment: float
    data: Mapping[str, Any] = field(default_factory=dict)


class ObservationLog:
    """All observations by device."""

    def __init__(self) -> None:
        self._observations: defaultdict[str, list[Observation]] = defaultdict(list)
        self._changed = asyncio.Event()
        self._ended = ""

    def add(self, observation: Observation) -> None:
        self._observations[observation.device].append(observation)
        self._changed.set()

    def end(self, reason: str) -> None:
        """Lets every present and later `until` fail with this reason."""
        self._ended = reason
        self._changed.set()

    def of(self, device: str, kind: str, *, since: float = 0.0, **data: Any) -> Iterator[Observation]:
        """Observations of a device from `since` on whose data have these values."""
        for one in self._observations[device]:
            if one.kind == kind and one.moment >= since and all(one.data.get(k) == v for k, v in data.items()):
                yield one

    def first(self, device: str, kind: str, *, since: float = 0.0, **data: Any) -> Observation | None:
        return next(self.of(device, kind, since=since, **data), None)

    async def until(self, find: Callable[[], T | None], what: str, seconds: float) -> T:
        """Waits until `find` returns something; it is called after every new observation.

        Raises:
            AssertionError: the time is over, or no observation can come any more.
        """
        try:
            async with asyncio.timeout(seconds):
                while (found := find()) is None:
                    assert not self._ended, f"not observed: {what}; {self._ended}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as e:
            raise AssertionError(f"not observed within {seconds:g} s: {what}") from e
        return found

    async def wait_for(self, device: str, kind: str, *, seconds: float, since: float = 0.0, **data: Any) -> Observation:
        """Waits for the first observation of this kind.

        Raises:
            AssertionError: there is none in time; with the latest observations of the device.
        """
        try:
            return await self.until(
                lambda: self.first(device, kind, since=since, **data), f"{kind} {data} at {device}", seconds
            )
        except AssertionError as e:
            e.add_note("\n".join(f"{one.kind} {dict(one.data)}" for one in self._observations[device][-30:]))
            raise
