"""What the compiler of containments keeps: subscriptions it cut, and identities contained by their name."""

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_TABLES = (
    """CREATE TABLE kept_subscriptions (
        device_id TEXT NOT NULL, case_id TEXT NOT NULL, topic TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (device_id, case_id, topic)) STRICT""",
    """CREATE TABLE identity_cases (
        kind TEXT NOT NULL, name TEXT NOT NULL, case_id TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (kind, name)) STRICT""",
)


@migration
def m0003_containment(db: sqlite_utils.Database) -> None:
    """Tables for subscriptions that were cut and for contained identities; effects have options since."""
    for statement in _TABLES:
        db.execute(statement)
