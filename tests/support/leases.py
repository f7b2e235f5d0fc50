"""What a controller holds beside others, as a test says."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from controller.ports.leases import ControllerInfo, Quiesce


class MemoryLeases:
    """`controller.ports.leases.Leases`; `hand_over` tells of buckets, `named` of devices; `set` changes it."""

    is_shared = True

    def __init__(self, buckets: frozenset[int], *, is_leader: bool = False, run_number: int = 1) -> None:
        self.buckets = buckets
        self.is_leader = is_leader
        self.leader_epoch = 1
        self.run_number = run_number
        self.clock_offset = 0.0
        self.fenced = 0
        self.left = 3.0  # seconds
        self.leader_url = ""
        self.quiesce: list[Quiesce] = []
        self.known: tuple[ControllerInfo, ...] = ()
        self._handed: asyncio.Queue[frozenset[int]] = asyncio.Queue()
        self.named: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        self._changed = asyncio.Event()

    async def announce(self, url: str) -> None:
        self.leader_url = url

    def lease_left(self) -> float:
        return self.left

    def set(self, buckets: frozenset[int] | None = None, *, is_leader: bool | None = None) -> None:
        if buckets is not None:
            self.buckets = buckets
        if is_leader is not None and is_leader != self.is_leader:
            self.is_leader = is_leader
            self.leader_epoch += is_leader
        self._changed.set()

    def hand_over(self, buckets: frozenset[int]) -> None:
        self._handed.put_nowait(buckets)

    async def changes(self) -> AsyncIterator[None]:
        yield
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield

    async def handed_over(self) -> AsyncIterator[frozenset[int]]:
        while True:
            yield await self._handed.get()

    async def devices_handed_over(self) -> AsyncIterator[frozenset[str]]:
        while True:
            yield await self.named.get()

    def before_release(self, quiesce: Quiesce) -> None:
        self.quiesce.append(quiesce)

    async def controllers(self) -> Sequence[ControllerInfo]:
        return self.known
