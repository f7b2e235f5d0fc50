"""Rollouts and how far each of their devices got."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_TABLES: Final = (
    """CREATE TABLE rollouts (
        number INTEGER PRIMARY KEY, rollout_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, state TEXT NOT NULL,
        created_at REAL NOT NULL, body TEXT NOT NULL) STRICT""",
    # Read ring by ring, written by device; no second index to keep.
    """CREATE TABLE rollout_members (
        rollout_id TEXT NOT NULL, device_id TEXT NOT NULL, ring INTEGER NOT NULL, state TEXT NOT NULL,
        body TEXT NOT NULL, PRIMARY KEY (rollout_id, device_id)) STRICT, WITHOUT ROWID""",
)


@migration
def m0007_rollouts(db: sqlite_utils.Database) -> None:
    """Rollouts and how far each of their devices got."""
    for statement in _TABLES:
        db.execute(statement)
