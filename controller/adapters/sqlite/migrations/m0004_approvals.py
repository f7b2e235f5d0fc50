"""Approval requests of all kinds, as history that can be filtered and paged."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_STATEMENTS: Final = (
    # `may_change` is 1 while something is still to come of the request; `requester`: key of the person.
    "ALTER TABLE approvals ADD COLUMN kind TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE approvals ADD COLUMN state TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE approvals ADD COLUMN requester TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE approvals ADD COLUMN asked_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE approvals ADD COLUMN may_change INTEGER NOT NULL DEFAULT 0",
    # Earlier versions knew persons by their tokens only: what still waits has to be asked for again.
    """UPDATE approvals SET body = json_set(body, '$.state', 'expired', '$.decided_by', 'cordon',
        '$.outcome', 'Cordon was upgraded: ask again') WHERE body ->> '$.state' = 'open'""",
    """UPDATE approvals SET kind = body ->> '$.kind', state = body ->> '$.state',
        requester = body ->> '$.requester.key', asked_at = body ->> '$.asked_at'""",
    "CREATE INDEX approvals_asked ON approvals (asked_at, request_id)",
    "CREATE INDEX approvals_changing ON approvals (request_id) WHERE may_change = 1",
)


@migration
def m0004_approvals(db: sqlite_utils.Database) -> None:
    """Add what lists of requests filter and order by."""
    for statement in _STATEMENTS:
        db.execute(statement)
