"""Runs what the leader runs for as long as this controller leads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from controller.app.core import Core
from controller.app.leader import Leader, build_leader
from controller.ports.errors import StoreError
from controller.ports.leases import Leases
from controller.ports.log import Log
from controller.service.books import Books

_RETRY: Final = 1.0  # seconds after what the leader needs could not be read


class Leadership:
    """A background loop. `leader`: what this controller leads with now."""

    def __init__(self, core: Core, leases: Leases, books: Books, log: Log) -> None:
        self.leader: Leader | None = None
        self._core = core
        self._leases = leases
        self._books = books
        self._log = log

    async def prepare(self) -> None:
        """Builds the leader's part at the start; beside others only to find mistakes of the configuration early.

        Raises:
            ControllerError: what the store holds, or a file of the configuration, cannot be used.
        """
        leader = await build_leader(self._core)
        if not self._leases.is_shared:
            self._begin(leader)

    async def run(self) -> None:
        """Runs until cancelled."""
        changes = self._leases.changes()
        await anext(changes)
        while True:
            epoch = self._leases.leader_epoch
            if self._leases.is_leader:
                await self._lead(epoch, changes)
            else:
                await anext(changes)

    async def _lead(self, epoch: int, changes: AsyncIterator[None]) -> None:
        leader = self.leader or await self._build(epoch)
        if leader is None:
            return
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(loop.run(), name=name) for name, loop in leader.loops]
                while self._leads(epoch):
                    await anext(changes)
                self._end(leader)  # before its loops end: nothing may be asked of it meanwhile
                for task in tasks:
                    task.cancel()
        finally:
            self._end(leader)
        self._log("this controller leads no more", {"epoch": epoch})

    async def _build(self, epoch: int) -> Leader | None:
        """The leader's part, made of what the store holds now; `None` if that could not be read."""
        try:
            await self._books.load()
            leader = await build_leader(self._core)
        except StoreError as e:
            self._log("this controller cannot lead yet", {"error": str(e)})
            await asyncio.sleep(_RETRY)
            return None
        if not self._leads(epoch):
            return None
        self._begin(leader)
        self._log("this controller leads", {"epoch": epoch})
        return leader

    def _begin(self, leader: Leader) -> None:
        leader.begin(self._core)
        self.leader = leader

    def _end(self, leader: Leader) -> None:
        if self.leader is leader:
            leader.end(self._core)
            self.leader = None

    def _leads(self, epoch: int) -> bool:
        return self._leases.is_leader and self._leases.leader_epoch == epoch
