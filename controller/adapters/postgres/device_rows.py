"""`controller.ports.device_rows` on PostgreSQL."""

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from controller.adapters.postgres.connection import PostgresConnection
from controller.adapters.postgres.reader import DEVICES, device_of
from controller.adapters.sql import guard_state
from controller.domain.device import Device
from controller.ports.device_rows import FleetSize, FleetVersions
from controller.ports.leases import ALL_BUCKETS
from controller.ports.store import GuardSnapshot

_LOAD: Final = f"SELECT contacts.version, {DEVICES.removeprefix('SELECT ')} WHERE devices.device_id = ANY(?::text[])"
_PAGE: Final = f"{DEVICES} WHERE devices.device_id > ? ORDER BY devices.device_id LIMIT ?"
# The index is by bucket first: naming all of them is what finds the earliest deadlines of all.
_DUE: Final = (
    "SELECT device_id FROM devices WHERE bucket = ANY(?::int2[]) AND deadline_at <= ? ORDER BY deadline_at LIMIT ?"
)
_SILENT: Final = (
    "SELECT device_id FROM contacts WHERE bucket = ANY(?::int2[]) AND NOT stale"
    " AND (last_seen < ? OR last_seen > ?) ORDER BY last_seen LIMIT ?"
)
_FLEET_VERSIONS: Final = "SELECT guard_version, policy_epoch, books_version FROM fleet"


def load(connection: PostgresConnection, ids: Collection[str]) -> list[tuple[Device, int]]:
    return [(device_of(row), version) for version, *row in connection.execute(_LOAD, (list(ids),))]


def versions(connection: PostgresConnection, ids: Collection[str]) -> dict[str, int]:
    found = connection.execute("SELECT device_id, version FROM contacts WHERE device_id = ANY(?::text[])", (list(ids),))
    return dict(found.fetchall())


def due(connection: PostgresConnection, now: float, buckets: Collection[int] | None, limit: int) -> list[str]:
    rows = connection.execute(_DUE, (_all_of(buckets), float(now), limit))
    return [device_id for (device_id,) in rows]


def silent(
    connection: PostgresConnection,
    before: float,
    buckets: Collection[int] | None,
    limit: int,
    *,
    beyond: float = math.inf,
) -> list[str]:
    rows = connection.execute(_SILENT, (_all_of(buckets), float(before), float(beyond), limit))
    return [device_id for (device_id,) in rows]


def page(connection: PostgresConnection, after: str, limit: int) -> list[Device]:
    return [device_of(row) for row in connection.execute(_PAGE, (after, limit))]


def fleet_size(connection: PostgresConnection) -> FleetSize:
    return FleetSize(*connection.execute("SELECT count(*), min(first_seen) FROM devices").fetchone())


def fleet_versions(connection: PostgresConnection) -> FleetVersions:
    return FleetVersions(*connection.execute(_FLEET_VERSIONS).fetchone())


def guard_books(connection: PostgresConnection) -> GuardSnapshot:
    with connection.snapshot():
        return replace(guard_state.books(connection), version=fleet_versions(connection).guards)


def _all_of(buckets: Collection[int] | None) -> list[int]:
    return sorted(ALL_BUCKETS if buckets is None else buckets)
