"""The keys by which devices sign their reports; the JSON of devices says whether they do."""

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration


@migration
def m0006d_report_keys(db: sqlite_utils.Database) -> None:
    """One key for each device, as it stands in certificates."""
    db.execute("CREATE TABLE report_keys (device_id TEXT PRIMARY KEY, key BLOB NOT NULL, at REAL NOT NULL) STRICT")
