"""Certificates are found by their key: whose certificate signed a report that is not its device's."""

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration


@migration
def m0006f_certificate_keys(db: sqlite_utils.Database) -> None:
    """An index; what is there stays as it is."""
    db.execute("CREATE INDEX certificates_key ON certificates (key)")
