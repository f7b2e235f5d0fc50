"""What a report by itself says of its device stands in columns, of the device and of the report.

So a report with nothing new changes no JSON, and one that changes no decision touches one page of the file, not two.
The body comes last: SQLite reads what stands before it without reading it.
"""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_STATEMENTS: Final = (
    "ALTER TABLE devices ADD COLUMN reported_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN boot_id TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE devices ADD COLUMN agent TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE devices ADD COLUMN judged_by TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE devices ADD COLUMN satisfied INTEGER NOT NULL DEFAULT 0",
    """UPDATE devices SET accepted = report_seq >= 0, reported_at = coalesce(state ->> 'reported_at', 0),
        boot_id = coalesce(state ->> 'boot_id', ''), agent = coalesce(state ->> 'agent', ''),
        judged_by = coalesce(state ->> 'judged_by', ''), satisfied = coalesce(state ->> 'satisfied', 0)""",
    """UPDATE devices SET state =
        json_remove(state, '$.reported_at', '$.boot_id', '$.agent', '$.judged_by', '$.satisfied')""",
    """CREATE TABLE reports_with_device (
        device_id TEXT PRIMARY KEY, report_seq INTEGER NOT NULL, digest TEXT NOT NULL, reported_at REAL NOT NULL,
        accepted INTEGER NOT NULL, boot_id TEXT NOT NULL, agent TEXT NOT NULL, judged_by TEXT NOT NULL,
        satisfied INTEGER NOT NULL, body BLOB NOT NULL) STRICT""",
    """INSERT INTO reports_with_device SELECT device_id, -1, digest, at, 0, '', '', '', 0, body FROM reports""",
    "DROP TABLE reports",
    "ALTER TABLE reports_with_device RENAME TO reports",
)


@migration
def m0009_contact(db: sqlite_utils.Database) -> None:
    """Columns for what changes with every report; a stored report from before is never later than its device."""
    for statement in _STATEMENTS:
        db.execute(statement)
