"""What this controller does by itself beside others on the same store: its share of the devices, and whether it leads.

A device belongs to one of `BUCKETS` buckets by its id. Whoever holds a bucket carries out the effects of its devices
and watches their deadlines and silence. One controller leads: it runs what exists once.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from zlib import crc32

BUCKETS: Final = 256
ALL_BUCKETS: Final = frozenset(range(BUCKETS))

Quiesce = Callable[[frozenset[int]], Coroutine[Any, Any, None]]


def bucket_of(device_id: str) -> int:
    """The bucket of a device, the same in every version."""
    return crc32(device_id.encode("utf-8", "surrogatepass")) % BUCKETS


@dataclass(frozen=True, slots=True)
class ControllerInfo:
    """A run of a controller that has not ended. `run`: its number in the store; `since`: Unix seconds.

    `lease_left`: seconds, negative once it is over. `pending`: effects of its buckets that are not carried out yet.
    `clock_offset`: seconds by which its clock was behind the store's when it last wrote.
    """

    name: str
    run: int
    since: float
    version: str
    is_leader: bool
    buckets: int
    lease_left: float
    pending: int
    clock_offset: float


class Leases(Protocol):
    """What this controller holds now; every method is called on the event loop's thread."""

    @property
    def is_shared(self) -> bool:
        """Whether other controllers may write to the same store: what is in memory may be old."""
        ...

    @property
    def run_number(self) -> int:
        """The number of this run in the store."""
        ...

    @property
    def buckets(self) -> frozenset[int]:
        """The buckets that are held, without those that are about to be given away."""
        ...

    @property
    def is_leader(self) -> bool:
        """Whether this controller leads; false as soon as its lease is over."""
        ...

    @property
    def leader_epoch(self) -> int:
        """Grows by one with each change of the leader."""
        ...

    @property
    def leader_url(self) -> str:
        """Where the API of the controller that leads is; empty if none leads, or it did not say."""
        ...

    async def announce(self, url: str) -> None:
        """Tells the others where this controller's API is.

        Raises:
            StoreError: it could not be written.
        """
        ...

    @property
    def clock_offset(self) -> float:
        """Seconds by which this machine's clock was behind the store's when it was last asked."""
        ...

    @property
    def fenced(self) -> int:
        """How many other controllers this one has fenced since it started."""
        ...

    def lease_left(self) -> float:
        """Seconds for which nobody else takes over, by this machine's monotonic clock; negative once they are over."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yields at once, then when `buckets`, `is_leader` or `leader_epoch` changed; several changes may be one."""
        ...

    def handed_over(self) -> AsyncIterator[frozenset[int]]:
        """Yields held buckets whose effects are to be read from the store: new ones, and now and then each of them."""
        ...

    def devices_handed_over(self) -> AsyncIterator[frozenset[str]]:
        """Yields devices of held buckets for which another controller decided something that is to be carried out."""
        ...

    def before_release(self, quiesce: Quiesce) -> None:
        """Waits for `quiesce` before buckets are given away, after they are gone from `buckets`."""
        ...

    async def controllers(self) -> Sequence[ControllerInfo]:
        """Every controller of the store, by name.

        Raises:
            StoreError: the store cannot be read.
        """
        ...


class AllLeases:
    """`Leases` of a controller that has its store for itself."""

    is_shared: Final = False
    run_number: Final = 1
    buckets: Final = ALL_BUCKETS
    is_leader: Final = True
    leader_epoch: Final = 1
    leader_url: Final = ""
    clock_offset: Final = 0.0
    fenced: Final = 0

    def __init__(self, name: str = "", version: str = "", since: float = 0.0) -> None:
        self._info = ControllerInfo(name, 1, since, version, True, BUCKETS, math.inf, 0, 0.0)

    async def announce(self, url: str) -> None:
        """There are no others."""

    def lease_left(self) -> float:
        return math.inf

    async def changes(self) -> AsyncIterator[None]:
        """Yields once, then waits for ever."""
        yield
        await asyncio.Event().wait()

    async def handed_over(self) -> AsyncIterator[frozenset[int]]:
        """Yields all buckets once, then waits for ever."""
        yield ALL_BUCKETS
        await asyncio.Event().wait()

    async def devices_handed_over(self) -> AsyncIterator[frozenset[str]]:
        """Waits for ever."""
        await asyncio.Event().wait()
        yield frozenset()

    def before_release(self, quiesce: Quiesce) -> None:
        """Nothing is ever given away."""

    async def controllers(self) -> Sequence[ControllerInfo]:
        return (self._info,)
