"""Each test of this folder runs on every store: SQLite, and with the marker `postgres` each PostgreSQL."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.sql.options import StoreOptions
from controller.adapters.sql.store import SqlStore
from tests.support.postgres import SERVERS, PostgresServer
from tests.support.postgres_store import opened as opened_postgres
from tests.support.store import QUICK, opened

KINDS = ["sqlite", *(pytest.param(kind, marks=pytest.mark.postgres) for kind in SERVERS)]


class StorePlace:
    """A place for one store, that may be opened again and again."""

    def __init__(self, kind: str, path: Path, server: PostgresServer | None) -> None:
        self.kind = kind
        self.path = path
        self.server = server
        self.database = "" if server is None else server.new_database()

    def opened(self, options: StoreOptions = QUICK) -> AbstractAsyncContextManager[SqlStore]:
        if self.server is None:
            return opened(self.path, options)
        return opened_postgres(self.server.url(self.database), "tests", options=options)

    def opened_beside(self) -> AbstractAsyncContextManager[SqlStore]:
        """Of PostgreSQL: another controller, beside the one that `opened` stands for."""
        assert self.server is not None
        return opened_postgres(self.server.url(self.database), "other")

    def change(self, statement: str) -> None:
        """Executes a statement beside the store, as an intruder would."""
        if self.server is not None:
            self.server.query(self.database, statement)
            return
        import sqlite3

        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.execute(statement)
            connection.commit()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    kind = request.param
    if kind == "sqlite":
        return StorePlace(kind, tmp_path / "store.db", None)
    return StorePlace(kind, tmp_path, request.getfixturevalue("postgres_servers")[kind])


@pytest.fixture(params=[kind for kind in KINDS if kind != "sqlite"])
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    """On PostgreSQL only."""
    return StorePlace(request.param, tmp_path, request.getfixturevalue("postgres_servers")[request.param])


@pytest.fixture
async def store(place: StorePlace) -> AsyncIterator[SqlStore]:
    async with place.opened() as found:
        yield found
