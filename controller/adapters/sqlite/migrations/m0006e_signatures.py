"""Commands may wait for an operator's signature and carry it."""

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration


@migration
def m0006e_signatures(_db: sqlite_utils.Database) -> None:
    """No table changes: the JSON of devices and effects has fields more, which an older Cordon would drop."""
