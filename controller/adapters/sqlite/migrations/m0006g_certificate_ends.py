"""The end of a certificate is told once; `recorded` is 2 where it was looked at."""

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration


@migration
def m0006g_certificate_ends(db: sqlite_utils.Database) -> None:
    """An index of those whose end is still to come or to be told."""
    db.execute("CREATE INDEX certificates_end ON certificates (end_at) WHERE recorded = 1")
