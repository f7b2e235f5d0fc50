"""How services read devices: by id through the memory, and by what they have in common from the rows."""

import itertools
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace

from controller.domain.device import Device
from controller.domain.policy.model import PolicySet
from controller.ports.clock import Clock
from controller.ports.fleet_queries import MAX_PAGE, DeviceFilter, DeviceQuery, FleetQueries
from controller.ports.store import Store
from controller.service.device_cache import DeviceCache
from controller.service.unit_of_work import UnitOfWork


class FleetReads:
    """The reading part of `FleetState`. Nothing visits all devices in memory: that is a part of the fleet."""

    def __init__(
        self, store: Store, cache: DeviceCache, queries: FleetQueries, policies: PolicySet, clock: Clock
    ) -> None:
        self.store = store
        self.cache = cache
        self.queries = queries
        self.policies = policies
        self.clock = clock
        self.get = cache.get
        self.load = cache.load

    async def find(self, device_id: str) -> Device | None:
        """The device as other controllers left it."""
        await self.cache.load((device_id,), fresh=True)
        return self.cache.get(device_id)

    async def report(self, device_id: str) -> bytes | None:
        """The last report of the device, also while its commit is under way."""
        for batch in reversed(self.cache.under_way):
            if device_id in batch.reports:
                return batch.reports[device_id].body
        return await self.store.report(device_id)

    async def find_all(self, ids: Collection[str]) -> list[Device]:
        """The devices with these ids as other controllers left them, without unknown ones."""
        return [device async for page in self.named(ids) for device in page]

    async def named(self, ids: Collection[str]) -> AsyncIterator[Sequence[Device]]:
        """As `find_all`, a page at a time: not all of them push others out of memory."""
        left = iter(ids)
        while some := list(itertools.islice(left, MAX_PAGE)):
            await self.cache.load(some, fresh=True)
            yield [device for device in map(self.cache.get, some) if device is not None]

    async def select(self, where: DeviceFilter) -> AsyncIterator[Device]:
        """The devices in the store that match, by id, a page at a time."""
        severities = {key: rule.severity for key, rule in self.policies.rules.items()}
        query = DeviceQuery(where, limit=MAX_PAGE, severities=severities, now=self.clock.now())
        while True:
            page = await self.queries.devices(query)
            for device in page.devices:
                yield device
            if page.following is None:
                return
            query = replace(query, after=page.following)

    async def pages(self) -> AsyncIterator[Sequence[Device]]:
        """All devices in the store, by id, a page at a time."""
        after = ""
        while page := await self.store.page(after, MAX_PAGE):
            yield page
            after = page[-1].device_id

    def rest_on(self, ids: Collection[str], batch: UnitOfWork) -> None:
        """Has the commit check the devices that the batch leaves as they are: memory may be older than rows."""
        if self.cache.is_shared:
            for device_id in ids:
                device = self.cache.get(device_id)
                if device is not None and device_id not in batch:
                    batch.checked[device_id] = device
