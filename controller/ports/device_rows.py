"""How a controller that does not hold every device in memory reads devices, and sees what other controllers changed."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.domain.device import Device


@dataclass(frozen=True, slots=True)
class FleetSize:
    """`devices`: how many; `began_at`: when the oldest was first seen (Unix seconds), `None` without devices."""

    devices: int
    began_at: float | None


@dataclass(frozen=True, slots=True)
class FleetVersions:
    """What tells a controller that another one changed something; all 0 where there is only one.

    `guards`: as `GuardSnapshot.version`. `policy_epoch`: of the policies in force. `books`: of everything else that
    a controller holds in memory: raised whenever it changes.
    """

    guards: int = 0
    policy_epoch: int = 0
    books: int = 0


class DeviceRows(Protocol):
    """Part of `controller.ports.store.Store`."""

    async def load(self, ids: Collection[str]) -> Sequence[tuple[Device, int]]:
        """Devices with their versions, in any order; unknown ids are left out."""
        ...

    async def versions(self, ids: Collection[str]) -> Mapping[str, int]:
        """The versions of devices, without unknown ids. With one controller they stay the same."""
        ...

    async def due(self, now: float, buckets: Collection[int] | None, limit: int) -> Sequence[str]:
        """Devices whose deadline is not after `now`, the earliest first; `buckets`: only of these, `None`: of all."""
        ...

    async def silent(
        self, before: float, buckets: Collection[int] | None, limit: int, *, beyond: float = math.inf
    ) -> Sequence[str]:
        """Devices that are not stale and whose last contact was before a time (Unix seconds); `buckets` as of `due`.

        Also those whose last contact is later than `beyond`: the clock was set back since.
        """
        ...

    async def page(self, after: str, limit: int) -> Sequence[Device]:
        """Devices in the order of ids, after the id `after`."""
        ...

    async def fleet_size(self) -> FleetSize: ...

    async def fleet_versions(self) -> FleetVersions: ...
