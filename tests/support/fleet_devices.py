"""Every device of a fleet for a test to look at: those in memory, and the rows of all others."""

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from controller.adapters.sqlite.device_rows import page
from controller.adapters.sqlite.store import SqliteStore
from controller.domain.device import Device
from controller.ports.store import Store, StoreWrites
from controller.service.fleet_state import FleetState

MOST_DEVICES: Final = 1_000_000
_ROWS: Final = 10_000  # in one commit


def devices_of(fleet: FleetState) -> Mapping[str, Device]:
    """By id; memory is as new as the rows, or ahead of them."""
    found = {device_id: device for device_id, device in fleet.cache._devices.items() if device is not None}
    if isinstance(fleet.store, SqliteStore):
        with contextlib.closing(sqlite3.connect(f"{fleet.store.path.as_uri()}?mode=ro", uri=True)) as connection:
            found = {device.device_id: device for device in page(connection, "", MOST_DEVICES)} | found
    return found


async def stored_devices(store: Store) -> Sequence[Device]:
    """In the order of ids."""
    return await store.page("", MOST_DEVICES)


async def add_devices(fleet: FleetState, *added: Device) -> None:
    """Stores devices as if they had been decided about, and has the fleet read them again."""
    for first in range(0, len(added), _ROWS):
        await fleet.store.commit(StoreWrites(devices=added[first : first + _ROWS]))
    fleet.cache.outdate([device.device_id for device in added])
    await fleet.start()
