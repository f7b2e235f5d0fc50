"""Where the versions of the tables enrol; a name that was released once is never given again."""

from collections.abc import Callable
from typing import Final

import sqlite_utils
from sqlite_utils.migrations import Migrations

migrations: Final = Migrations("cordon")
KNOWN: Final[set[str]] = set()  # the names this version of Cordon knows

Migration = Callable[[sqlite_utils.Database], None]


def migration(change: Migration) -> Migration:
    """Enrol `change` under its function's name; it runs once for a file, inside the transaction that opens it."""
    KNOWN.add(change.__name__)
    migrations()(change)
    return change
