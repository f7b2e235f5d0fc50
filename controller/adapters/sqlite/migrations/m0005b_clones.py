"""A device remembers its boot before the present one, so that two machines that report as one are found."""

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration


@migration
def m0005b_clones(db: sqlite_utils.Database) -> None:
    """Nothing to change in what is there: the new fields of a device's JSON have defaults, and only older versions
    would stumble over them.
    """
    del db
