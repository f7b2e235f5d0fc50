"""API tokens have scopes and an end; those made before keep what they could do, which was everything."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

# As they were when this version was made: a scope that is added later is not given to old tokens.
_ALL: Final = "read contain command policy rollout identity admin"


@migration
def m0006_token_scopes(db: sqlite_utils.Database) -> None:
    """Scopes and an end for API tokens."""
    db.execute("ALTER TABLE tokens ADD COLUMN scopes TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE tokens ADD COLUMN expires_at REAL")
    db.execute("UPDATE tokens SET scopes = ?", (_ALL,))
