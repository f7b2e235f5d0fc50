import sqlite3
from collections.abc import Iterator

import pytest
import sqlite_utils

from controller.adapters.sqlite.migrations import migrations


@pytest.fixture(scope="module")
def memory() -> Iterator[sqlite3.Connection]:
    """A database in memory with the tables of this version."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations.apply(sqlite_utils.Database(connection))
    yield connection
    connection.close()
