"""Guards: what was contained lately, waivers, and requests that wait for a second person."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_GUARDS: Final = (
    # `ledger`: empty for what policies contained, else the operator; `subject`: the device.
    """CREATE TABLE charges (
        ledger TEXT NOT NULL, subject TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (ledger, subject)) STRICT""",
    "CREATE TABLE waivers (waiver_id TEXT PRIMARY KEY, expires_at REAL NOT NULL, body TEXT NOT NULL) STRICT",
    "CREATE TABLE approvals (request_id TEXT PRIMARY KEY, expires_at REAL NOT NULL, body TEXT NOT NULL) STRICT",
)


@migration
def m0002_guards(db: sqlite_utils.Database) -> None:
    """New tables; the JSON of devices, cases and effects names evidence from here on."""
    for statement in _GUARDS:
        db.execute(statement)
