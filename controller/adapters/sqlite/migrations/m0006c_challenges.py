"""Devices say whether their agent answers a nonce, and cases hold the one to be answered."""

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration


@migration
def m0006c_challenges(_db: sqlite_utils.Database) -> None:
    """No table changes: the JSON of devices and cases has a field more, which an older Cordon would drop."""
