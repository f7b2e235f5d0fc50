"""Audit lines of several writers: a key of writer and number, lists by time, and anchors across the chains.

The lines of this file are of writer 1; their digests stay as they are.
"""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration
from controller.domain.audit_chain import GENESIS, ChainHead

# The values are written here, not imported: a migration never changes its meaning.
_WRITER: Final = 1 << 40  # before the number of a line of writer 1, in its key
_AUDIT: Final = (
    # `id` is writer * 2^40 + number. `chain` is the digest of the row before, followed by this row's own.
    """CREATE TABLE audit_lines (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, device_id TEXT NOT NULL, actor TEXT NOT NULL,
        case_id TEXT NOT NULL, alert INTEGER NOT NULL, detail TEXT, chain BLOB) STRICT""",
    f"""INSERT INTO audit_lines SELECT seq + {_WRITER}, at, kind, device_id, actor, case_id, alert, detail, chain
        FROM audit ORDER BY seq""",  # noqa: S608 - constants
)
_RECORDED: Final = "SELECT seq FROM audit WHERE kind = 'audit.pruned' AND actor = 'cordon' ORDER BY seq DESC LIMIT 1"
_RENAME: Final = (
    "DROP TABLE audit",
    "ALTER TABLE audit_lines RENAME TO audit",
    "CREATE INDEX audit_at ON audit (at)",
    "CREATE INDEX audit_device ON audit (device_id, at)",
    "CREATE INDEX audit_case ON audit (case_id, at) WHERE case_id <> ''",
    "CREATE INDEX audit_alert ON audit (at) WHERE alert = 1",
)
_TABLES: Final = (
    # The end of each chain.
    "CREATE TABLE audit_chains (writer INTEGER PRIMARY KEY, seq INTEGER NOT NULL, digest BLOB NOT NULL) STRICT",
    # The last pruned row of each chain, and the key of the row that records it.
    """CREATE TABLE audit_pruned (
        writer INTEGER PRIMARY KEY, seq INTEGER NOT NULL, digest BLOB NOT NULL, line INTEGER NOT NULL) STRICT""",
    """CREATE TABLE audit_anchors (
        number INTEGER PRIMARY KEY, at REAL NOT NULL, body TEXT NOT NULL, chain BLOB) STRICT""",
    # The last line of each writer of which notifications were planned.
    "CREATE TABLE notification_cursors (writer INTEGER PRIMARY KEY, seq INTEGER NOT NULL) STRICT",
)
# Stored messages name their line, if they have one.
_NAME: Final = "CASE body ->> '{0}' WHEN 0 THEN '' ELSE '1-' || (body ->> '{0}') END"
_MESSAGES: Final = (
    f"""UPDATE notification_deliveries SET body = json_remove(json_set(body, '$.line', {_NAME.format("$.seq")}),
        '$.seq') WHERE body ->> '$.seq' IS NOT NULL""",  # noqa: S608 - constants
    f"""UPDATE notification_threads SET body = json_remove(json_set(body, '$.last.line', {_NAME.format("$.last.seq")}),
        '$.last.seq') WHERE body ->> '$.last.seq' IS NOT NULL""",  # noqa: S608 - constants
)


@migration
def m0007_audit_writers(db: sqlite_utils.Database) -> None:
    """Give audit lines keys with a writer, and begin the anchors."""
    counted = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    for statement in (*_TABLES, *_AUDIT):
        db.execute(statement)
    pruned = _pruned(db)
    last = db.execute("SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    head = pruned if last is None else ChainHead(last[0], bytes(last[1] or GENESIS)[-len(GENESIS) :])
    # The highest number ever given: what was cut off before stays missing.
    end = max(head.seq, counted[0] if counted else 0)
    db.execute("INSERT INTO audit_chains VALUES (1, ?, ?)", (end, head.digest))
    if pruned.seq:
        recorded = db.execute(_RECORDED).fetchone() or (0,)
        row = (pruned.seq, pruned.digest, recorded[0] + _WRITER)
        db.execute("INSERT INTO audit_pruned VALUES (1, ?, ?, ?)", row)
    cursor = db.execute("SELECT value FROM meta WHERE key = 'notifications.cursor'").fetchone()
    if cursor is not None:
        db.execute("INSERT INTO notification_cursors VALUES (1, ?)", (int(cursor[0]),))
    db.execute("DELETE FROM meta WHERE key IN ('audit.anchor', 'notifications.cursor')")
    for statement in (*_RENAME, *_MESSAGES):
        db.execute(statement)


def _pruned(db: sqlite_utils.Database) -> ChainHead:
    found = db.execute("SELECT value FROM meta WHERE key = 'audit.anchor'").fetchone()
    return ChainHead(0, GENESIS) if found is None else ChainHead.parse(found[0])
