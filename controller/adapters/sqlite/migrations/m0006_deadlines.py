"""Deadlines and places in the queue of the blast radius as columns, so that a controller need not hold every device."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_STATEMENTS: Final = (
    "ALTER TABLE devices ADD COLUMN deadline_at REAL",
    # The pool in which a device waits that the blast radius holds back.
    "ALTER TABLE devices ADD COLUMN waits_in TEXT",
    # Policies and waivers decide when a deadline is: it is looked at, once, of each device that may have one.
    """UPDATE devices SET deadline_at = 0 WHERE json_extract(state, '$.case') IS NOT NULL
        OR json_array_length(state, '$.commands') > 0
        OR EXISTS (SELECT 1 FROM json_each(devices.state, '$.rules'))""",
    # As a device's pool was when it began to wait; the first week of a fleet knows no new devices.
    """UPDATE devices SET waits_in = CASE
            WHEN json_extract(state, '$.pending.since') - first_seen >= 604800 THEN ''
            WHEN json_extract(state, '$.enrolled_with') <> '' THEN 'token:' || json_extract(state, '$.enrolled_with')
            WHEN json_extract(state, '$.pending.since') - (SELECT min(first_seen) FROM devices) >= 604800 THEN 'new'
            ELSE '' END
        WHERE json_extract(state, '$.pending.why') = 'blast-radius'""",
    # Of few devices. Statements that leave both columns alone, as those of contacts, leave the indexes alone.
    "CREATE INDEX devices_due ON devices (deadline_at) WHERE deadline_at IS NOT NULL",
    "CREATE INDEX devices_waiting ON devices (waits_in) WHERE waits_in IS NOT NULL",
)


@migration
def m0006_deadlines(db: sqlite_utils.Database) -> None:
    """Add both columns, and fill them from the devices there are."""
    for statement in _STATEMENTS:
        db.execute(statement)
