"""Controllers over one store, each with a memory of its own; the store refuses what was decided on an older version."""

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from controller.adapters.sql.store import SqlStore
from controller.adapters.system import UlidGenerator
from controller.domain.device import Device
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.ports.errors import ConflictError
from controller.ports.store import GuardSnapshot, StoreWrites
from controller.service.device_cache import DeviceCache
from controller.service.fleet_state import FleetState
from controller.service.ingest.ingest import Ingest
from tests.support.clocks import ManualClock
from tests.support.controller_harness import LogLines, MemoryLink, starter
from tests.support.playbook import language


class SharedStore:
    """A store of one controller that checks versions as a shared one does, when a commit is queued."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._versions: dict[str, int] = {}
        self._guards = 0
        self._charged: dict[tuple[str, str], float] = {}
        self._waiting: dict[str, str] = {}  # pools by device
        self.refusals = 0
        self.refuses: ConflictError | None = None  # every commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, writes: StoreWrites) -> Awaitable[None]:
        others = [one for one, (before, _) in writes.versions.items() if self._versions.get(one, 0) != before]
        guards = writes.guards_version is not None and writes.guards_version[0] != self._guards
        charged, waiting = self._after(writes)
        for one in writes.radius:
            used = sum(1 for (ledger, _), at in charged.items() if ledger == one.ledger and at > one.since)
            waits = any(pool == one.pool and name not in one.held for name, pool in waiting.items())
            guards = guards or not one.holds(used, waits=waits)
        refused = self.refuses or (ConflictError(others, guards=guards) if others or guards else None)
        if refused is not None:
            self.refusals += 1
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            told.set_exception(refused)
            return told
        self._charged, self._waiting = charged, waiting
        self._versions.update({one: after for one, (_, after) in writes.versions.items()})
        if writes.guards_version is not None:
            self._guards = writes.guards_version[1]
        return self._store.commit(writes)

    def _after(self, writes: StoreWrites) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
        charged = dict(self._charged)
        for ledger, device_id, at in writes.charges:
            charged.pop((ledger, device_id), None)
            if at is not None:
                charged[ledger, device_id] = at
        decided = {one.device_id for one in writes.devices}
        waiting = {name: pool for name, pool in self._waiting.items() if name not in decided}
        return charged, {**waiting, **writes.waits_in}

    async def load(self, ids: Collection[str]) -> Sequence[tuple[Device, int]]:
        return [(one, self._versions.get(one.device_id, 0)) for one, _ in await self._store.load(ids)]

    async def guard_books(self) -> GuardSnapshot:
        return replace(await self._store.guard_books(), version=self._guards)


@dataclass(frozen=True, slots=True)
class OneController:
    """What decides in one of several controllers."""

    fleet: FleetState
    ingest: Ingest
    link: MemoryLink
    log: LogLines


async def controller_over(
    store: Any, writer: int, clock: ManualClock, guards: FleetGuards = NO_GUARDS, most: int = 1000
) -> OneController:
    """A controller with room for `most` devices in memory, whose decisions have numbers of `writer`."""
    cache = DeviceCache(store, most, is_shared=True)
    queries = store.fleet_queries
    fleet = FleetState(
        store, starter(), language(), clock, UlidGenerator(), (), guards=guards, queries=queries, cache=cache,
        writer=writer,
    )  # fmt: skip
    await fleet.start()
    link, log = MemoryLink(), LogLines()
    return OneController(fleet, Ingest(link, fleet, log), link, log)
