"""The tables of the first version."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_FIRST: Final = (
    # What lists and timers look at stands in columns; the rest of a device is one JSON object.
    """CREATE TABLE devices (
        device_id TEXT PRIMARY KEY, first_seen REAL NOT NULL, last_seen REAL NOT NULL, online INTEGER,
        stale INTEGER NOT NULL, level TEXT NOT NULL, report_seq INTEGER NOT NULL, digest TEXT NOT NULL,
        state TEXT NOT NULL) STRICT""",
    """CREATE TABLE reports (
        device_id TEXT PRIMARY KEY, digest TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL) STRICT""",
    """CREATE TABLE audit (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, device_id TEXT NOT NULL,
        actor TEXT NOT NULL, case_id TEXT NOT NULL, alert INTEGER NOT NULL, detail TEXT) STRICT""",
    "CREATE INDEX audit_device ON audit (device_id)",
    "CREATE INDEX audit_case ON audit (case_id) WHERE case_id <> ''",
    "CREATE INDEX audit_alert ON audit (seq) WHERE alert = 1",
    """CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY, effect_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, body TEXT NOT NULL) STRICT""",
    """CREATE TABLE commands (
        seq INTEGER PRIMARY KEY, command_id TEXT NOT NULL UNIQUE, device_id TEXT NOT NULL, state TEXT NOT NULL,
        updated_at REAL NOT NULL, body TEXT NOT NULL) STRICT""",
    "CREATE INDEX commands_device ON commands (device_id)",
    "CREATE INDEX commands_state ON commands (state)",
    """CREATE TABLE dead_letters (
        seq INTEGER PRIMARY KEY, at REAL NOT NULL, device_id TEXT NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL,
        detail TEXT NOT NULL, size INTEGER NOT NULL, payload BLOB NOT NULL) STRICT""",
    """CREATE TABLE kept_rules (
        device_id TEXT NOT NULL, case_id TEXT NOT NULL, at REAL NOT NULL, rules TEXT NOT NULL,
        PRIMARY KEY (device_id, case_id)) STRICT""",
    "CREATE TABLE tokens (name TEXT PRIMARY KEY, digest TEXT NOT NULL, created_at REAL NOT NULL) STRICT",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
)


@migration
def m0001_first(db: sqlite_utils.Database) -> None:
    """The tables of the first version."""
    for statement in _FIRST:
        db.execute(statement)
