"""The record becomes a chain; the rows that are there are chained as they stand."""

import json
from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration
from controller.domain.chain import GENESIS, Head, digest_after

_AT_ONCE: Final = 5000  # rows held in memory


@migration
def m0006b_audit_chain(db: sqlite_utils.Database) -> None:
    """Each row of the record gets the digest before it and its own."""
    db.execute("ALTER TABLE audit ADD COLUMN chain BLOB")
    first, last = db.execute("SELECT min(seq), max(seq) FROM audit").fetchone()
    if first is None:
        counted = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
        first, last = (counted[0] + 1, counted[0]) if counted else (1, 0)
    # Named here, not imported: a migration means what it meant when it was written.
    db.execute("INSERT INTO meta (key, value) VALUES ('audit.anchor', ?)", (str(Head(first - 1, GENESIS)),))
    db.execute("INSERT INTO meta (key, value) VALUES ('audit.chained_through', ?)", (str(last),))
    before, after = GENESIS, first - 1
    while rows := db.execute(
        "SELECT seq, at, kind, device_id, actor, case_id, alert, detail FROM audit WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, _AT_ONCE),
    ).fetchall():
        for seq, *said in rows:
            digest = digest_after(before, seq, json.dumps(said, separators=(",", ":")).encode())
            db.execute("UPDATE audit SET chain = ? WHERE seq = ?", (before + digest, seq))
            before, after = digest, seq
