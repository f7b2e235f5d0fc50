"""`controller.ports.device_rows` on SQLite: one controller has every bucket, and nobody else changes anything."""

import json
import math
import sqlite3
from collections.abc import Collection
from typing import Final

from controller.adapters.sql import codec
from controller.adapters.sqlite.reader import DEVICES
from controller.domain.device import Device
from controller.ports.device_rows import FleetSize, FleetVersions

_VERSION: Final = 1  # of each device that there is
_LOAD: Final = f"{DEVICES} WHERE devices.device_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
_PAGE: Final = f"{DEVICES} WHERE devices.device_id > ? ORDER BY devices.device_id LIMIT ?"
_KNOWN: Final = "SELECT device_id FROM devices WHERE device_id IN (SELECT value FROM json_each(?))"
_DUE: Final = "SELECT device_id FROM devices WHERE deadline_at <= ? ORDER BY deadline_at LIMIT ?"
# A report that came after the device's row was written is a contact too.
_SILENT: Final = (
    "SELECT device_id FROM devices LEFT JOIN reports USING (device_id) WHERE stale = 0"
    " AND (last_seen < ?1 OR last_seen > ?3)"
    " AND (reports.accepted IS NULL OR reports.accepted <= devices.accepted OR reports.reported_at < ?1"
    " OR last_seen > ?3) ORDER BY last_seen LIMIT ?2"
)


def load(connection: sqlite3.Connection, ids: Collection[str]) -> list[tuple[Device, int]]:
    return [(codec.device_from(row), _VERSION) for row in connection.execute(_LOAD, (json.dumps(list(ids)),))]


def versions(connection: sqlite3.Connection, ids: Collection[str]) -> dict[str, int]:
    return {device_id: _VERSION for (device_id,) in connection.execute(_KNOWN, (json.dumps(list(ids)),))}


def due(connection: sqlite3.Connection, now: float, buckets: Collection[int] | None, limit: int) -> list[str]:
    del buckets
    return [device_id for (device_id,) in connection.execute(_DUE, (now, limit))]


def silent(
    connection: sqlite3.Connection,
    before: float,
    buckets: Collection[int] | None,
    limit: int,
    *,
    beyond: float = math.inf,
) -> list[str]:
    del buckets
    return [device_id for (device_id,) in connection.execute(_SILENT, (before, limit, beyond))]


def page(connection: sqlite3.Connection, after: str, limit: int) -> list[Device]:
    return [codec.device_from(row) for row in connection.execute(_PAGE, (after, limit))]


def fleet_size(connection: sqlite3.Connection) -> FleetSize:
    return FleetSize(*connection.execute("SELECT count(*), min(first_seen) FROM devices").fetchone())


def fleet_versions(connection: sqlite3.Connection) -> FleetVersions:
    del connection
    return FleetVersions()
