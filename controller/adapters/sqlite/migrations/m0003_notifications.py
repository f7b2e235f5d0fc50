"""Notifications: receivers, what each was told of a case, what is still to be sent, and who looks after a case."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_ALL: Final = (
    # `dropped`: messages that were never sent and that the next message tells of.
    """CREATE TABLE notification_sinks (
        name TEXT PRIMARY KEY, body TEXT NOT NULL, dropped INTEGER NOT NULL DEFAULT 0,
        failing_since REAL NOT NULL DEFAULT 0, alerted INTEGER NOT NULL DEFAULT 0,
        trouble TEXT NOT NULL DEFAULT '') STRICT""",
    """CREATE TABLE notification_threads (
        sink TEXT NOT NULL, thread TEXT NOT NULL, case_id TEXT NOT NULL, told_at REAL NOT NULL,
        severity INTEGER NOT NULL, is_open INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (sink, thread)) STRICT""",
    """CREATE INDEX notification_threads_due ON notification_threads (told_at)
        WHERE is_open = 1 AND severity = 2 AND case_id <> ''""",
    """CREATE TABLE notification_deliveries (
        seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, sink TEXT NOT NULL, case_id TEXT NOT NULL,
        severity INTEGER NOT NULL, state TEXT NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL,
        queued_at REAL NOT NULL, ended_at REAL NOT NULL, trouble TEXT NOT NULL,
        body TEXT NOT NULL) STRICT""",
    "CREATE INDEX notification_deliveries_due ON notification_deliveries (sink, due) WHERE state = 'pending'",
    "CREATE INDEX notification_deliveries_case ON notification_deliveries (case_id) WHERE case_id <> ''",
    """CREATE TABLE notification_acknowledgements (
        case_id TEXT PRIMARY KEY, by TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL) STRICT""",
)


@migration
def m0003_notifications(db: sqlite_utils.Database) -> None:
    """Create the tables of notifications."""
    for statement in _ALL:
        db.execute(statement)
