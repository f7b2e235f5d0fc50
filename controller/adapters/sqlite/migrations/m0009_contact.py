"""When a device last reported stands in a column, so that a report with nothing new changes no JSON."""

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration


@migration
def m0009_contact(db: sqlite_utils.Database) -> None:
    """`reported_at` moves out of the state."""
    db.execute("ALTER TABLE devices ADD COLUMN reported_at REAL NOT NULL DEFAULT 0")
    db.execute(
        "UPDATE devices SET reported_at = coalesce(json_extract(state, '$.reported_at'), 0),"
        " state = json_remove(state, '$.reported_at')"
    )
