"""What the broker was like before its setup; access templates, the rules written for each device, and grants."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_TABLES: Final = (
    # One row each: there is one broker, and one set of templates in force.
    """CREATE TABLE broker_setup (
        one INTEGER PRIMARY KEY CHECK (one = 1), at REAL NOT NULL, before TEXT NOT NULL, client_id INTEGER NOT NULL,
        deny_unmatched INTEGER NOT NULL) STRICT""",
    """CREATE TABLE access_templates (
        one INTEGER PRIMARY KEY CHECK (one = 1), at REAL NOT NULL, actor TEXT NOT NULL, body TEXT NOT NULL) STRICT""",
    # Devices of a class have the same rules: each set is kept once. `previous` is what may still be at the broker
    # while `written` is 0.
    "CREATE TABLE access_sets (digest TEXT PRIMARY KEY, rules TEXT NOT NULL) STRICT",
    """CREATE TABLE access_rules (
        device_id TEXT PRIMARY KEY, digest TEXT NOT NULL, previous TEXT NOT NULL, written INTEGER NOT NULL) STRICT""",
    """CREATE TABLE access_grants (
        grant_id TEXT PRIMARY KEY, device_id TEXT NOT NULL, expires_at REAL NOT NULL, ended_at REAL,
        body TEXT NOT NULL) STRICT""",
    "CREATE INDEX access_grants_open ON access_grants (device_id) WHERE ended_at IS NULL",
)


@migration
def m0004_broker(db: sqlite_utils.Database) -> None:
    """Setup of the broker, and access rules for the fleet."""
    for statement in _TABLES:
        db.execute(statement)
