"""The registry of migrations; a released name is never used again."""

from collections.abc import Callable
from typing import Final

import sqlite_utils
from sqlite_utils.migrations import Migrations

migrations: Final = Migrations("cordon")
KNOWN: Final[set[str]] = set()  # the names this version of Cordon knows

Migration = Callable[[sqlite_utils.Database], None]


def migration(change: Migration) -> Migration:
    """Registers `change` under its function's name; it runs once per file, in the transaction that opens it."""
    KNOWN.add(change.__name__)
    migrations()(change)
    return change
