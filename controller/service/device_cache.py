"""The devices in memory: a bounded part of the fleet, loaded from rows by id and dropped when others need the room."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from controller.domain.device import Device
from controller.ports.store import Store
from controller.service.unit_of_work import UnitOfWork

MAX_CACHED: Final = 200_000  # devices; about 0.4 GB
_LOADED_AT_ONCE: Final = 1000  # rows in one query


class DeviceCache:
    """Devices by id, least recently used first. An id that has no row is held too, as `None`.

    What is in memory is as new as the rows, or ahead of them while a commit is under way: a device is not dropped until
    its commit has ended. Where controllers share the store, rows may be newer: a commit by an older state is refused.
    """

    def __init__(self, store: Store, most: int = MAX_CACHED, *, is_shared: bool = False) -> None:
        """`is_shared`: other controllers change rows of the same store."""
        self.is_shared = is_shared
        self.versions: dict[str, int] = {}  # of rows that others may change; without unknown devices
        self.any_signs = False  # a device that was loaded signs its reports
        self._store = store
        self._most = most
        self._devices: OrderedDict[str, Device | None] = OrderedDict()
        self._outdated: set[str] = set()  # to be read again before the next decision
        self.under_way: dict[UnitOfWork, None] = {}  # commits that have not ended, in order
        self._kept: list[Container[str]] = []
        self._loading = asyncio.Lock()  # of two reads of a row the older one must not come last
        self._on_dropped: tuple[Callable[[str], None], ...] = ()

    def __contains__(self, device_id: str) -> bool:
        return device_id in self._devices

    def __len__(self) -> int:
        """The number of entries, unknown ids among them."""
        return len(self._devices)

    def get(self, device_id: str) -> Device | None:
        """The device; `None` if there is none.

        Raises:
            AssertionError: it was not loaded, so nobody knows.
        """
        try:
            return self._devices[device_id]
        except KeyError:
            raise AssertionError(f"{device_id} was not loaded") from None

    def peek(self, device_id: str) -> Device | None:
        """The device if it is in memory; `None` says nothing about the fleet."""
        return self._devices.get(device_id)

    def put(self, device: Device) -> None:
        """Replaces a loaded device by its next state."""
        self._devices[device.device_id] = device
        self._devices.move_to_end(device.device_id)

    def on_dropped(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with each id whose state was dropped or read again: what was derived from it is void."""
        self._on_dropped = (*self._on_dropped, listener)

    @contextmanager
    def keep(self, ids: Collection[str]) -> Iterator[None]:
        """Drops none of these meanwhile, once they are loaded."""
        self._kept.append(ids)
        try:
            yield
        finally:
            self._kept = [one for one in self._kept if one is not ids]

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those that have to be loaded; where others add devices, an unknown one each time."""
        devices, outdated = self._devices, self._outdated
        if self.is_shared:
            return [one for one in ids if devices.get(one) is None or one in outdated]
        return [one for one in ids if one not in devices or one in outdated]

    def outdate(self, ids: Iterable[str]) -> None:
        """Has these read again before the next decision: what is in memory was not committed."""
        self._outdated.update(one for one in ids if one in self._devices)

    async def load(self, ids: Collection[str], *, fresh: bool = False) -> None:
        """Makes sure that these are in memory when it returns; `fresh`: as other controllers left them."""
        is_fresh = fresh and self.is_shared
        if not is_fresh and not self.missing(ids):
            return
        with self.keep(ids):
            async with self._loading:
                wanted = [one for one in ids if not self.is_ahead(one)] if is_fresh else self.missing(ids)
                left = iter(dict.fromkeys(wanted))
                while some := list(islice(left, _LOADED_AT_ONCE)):
                    await self._read(some)
            self._evict()

    def is_ahead(self, device_id: str) -> bool:
        """Whether a commit of this process is under way, which a row that was read may lack."""
        return self._is_held(device_id) and any(device_id in one for one in self.under_way)

    def _is_held(self, device_id: str) -> bool:
        return device_id in self._devices and device_id not in self._outdated

    async def _read(self, ids: list[str]) -> None:
        before = {one: self._devices.get(one) for one in ids}
        rows = {device.device_id: (device, version) for device, version in await self._store.load(ids)}
        for device_id in ids:
            is_held = self._is_held(device_id)
            if is_held and (self._devices[device_id] is not before[device_id] or self.is_ahead(device_id)):
                continue  # decided meanwhile
            device, version = rows.get(device_id, (None, 0))
            if is_held and self._is_same(device_id, device, version):
                continue
            if device_id in self._devices:
                self._tell_dropped(device_id)
            self._outdated.discard(device_id)
            self._devices[device_id] = device
            if device is None:
                self.versions.pop(device_id, None)
                self._devices.move_to_end(device_id, last=False)  # nothing is lost with it
                continue
            self.any_signs = self.any_signs or device.signs
            if self.is_shared:
                self.versions[device_id] = version

    def _is_same(self, device_id: str, device: Device | None, version: int) -> bool:
        held = self._devices[device_id]
        return held == device and self.versions.get(device_id, 0) == version

    def _evict(self) -> None:
        over = len(self._devices) - self._most
        if over <= 0:
            return
        held: tuple[Container[str], ...] = (*self._kept, *self.under_way)
        free = (one for one in self._devices if not any(one in ids for ids in held))
        for device_id in list(islice(free, over)):
            del self._devices[device_id]
            self.versions.pop(device_id, None)
            self._outdated.discard(device_id)
            self._tell_dropped(device_id)

    def _tell_dropped(self, device_id: str) -> None:
        for listener in self._on_dropped:
            listener(device_id)
