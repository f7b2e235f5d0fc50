"""Which devices a pass over access rules looks at: those that were noted, and now and then all of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from controller.domain.broker.access import CompiledRules
from controller.domain.device import Device
from controller.service.fleet_state import FleetState

# Seconds between two passes over all devices; only they see the decisions of other controllers.
ALL_EVERY: Final = 3600.0
SHARED_EVERY: Final = 60.0
REST: Final = 20  # and at least so many times as long as the last one took


@dataclass(slots=True)
class DueDevice:
    """A device whose rules differ from the desired ones; `wanted` of `None` removes the rules that Cordon wrote."""

    device: Device
    wanted: CompiledRules | None


class NotedDevices:
    """The ids of devices whose rules may have to be written. The first pass looks at every device."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._noted: set[str] = set()
        self._looks_at_all = True
        self._next_of_all = 0.0  # monotonic seconds

    def __contains__(self, device_id: str) -> bool:
        return device_id in self._noted

    def note(self, *device_ids: str) -> None:
        """Has the next pass look at these."""
        self._noted.update(device_ids)

    def settle(self, device_id: str) -> None:
        """There is nothing to do for the device until it is noted again."""
        self._noted.discard(device_id)

    def note_all(self) -> None:
        """Has the next pass look at every device."""
        self._looks_at_all = True

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[AsyncIterator[Device]]:
        """The devices of this pass, which are noted no more; all of them are again if the pass fails."""
        clock, noted = self._fleet.clock, self._noted
        began = clock.monotonic()
        is_of_all = self._looks_at_all or began >= self._next_of_all
        self._noted, self._looks_at_all = set(), False
        try:
            yield self._devices(noted, is_of_all=is_of_all)
        except BaseException:
            self._noted |= noted
            self._looks_at_all = self._looks_at_all or is_of_all
            raise
        if is_of_all:
            ended = clock.monotonic()
            every = SHARED_EVERY if self._fleet.cache.is_shared else ALL_EVERY
            self._next_of_all = ended + max(every, REST * (ended - began))

    async def _devices(self, noted: set[str], *, is_of_all: bool) -> AsyncIterator[Device]:
        async for page in self._fleet.pages() if is_of_all else self._fleet.named(noted):
            for device in page:
                yield device
