"""Lists of devices on SQLite: a store from before them, and the time limit."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.fleet_queries import SqliteFleetQueries
from controller.ports.fleet_queries import DeviceQuery, QueryTooLongError
from tests.support.fleet_devices import devices_of
from tests.support.fleet_oracle import RandomFleet, expected_summary
from tests.support.store import opened


async def test_the_devices_of_an_older_store_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        one = RandomFleet.over(store)
        await one.play(("Edge-1", kind, 1234, 1.0) for kind in ("report", "label", "status", "contain"))
        await one.play(("Edge-2", kind, 97, 1.0) for kind in ("report", "stale"))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        found = connection.execute(
            "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'trigger')"
            " AND (tbl_name LIKE 'device@_%' ESCAPE '@' OR type = 'trigger')"
        ).fetchall()
        for kind, name in sorted(found, reverse=True):  # triggers first
            connection.execute(f"DROP {kind} {name}")
        connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'm0005_queries'")
    async with opened(path) as store:
        assert await store.fleet_queries.summary() == expected_summary(devices_of(one.fleet).values())
        one.fleet.store = store
        await one.play([("Edge-2", "report", 4, 1.0), ("Edge-1", "label", 5, 1.0)])
        assert await store.fleet_queries.summary() == expected_summary(devices_of(one.fleet).values())


async def test_a_query_that_takes_too_long_is_ended_and_the_next_one_answers(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    async with opened(tmp_path / "store.db") as store:
        queries = SqliteFleetQueries(store.path, StoreOptions(), seconds=0.05)
        try:
            for _ in range(3):
                with pytest.raises(QueryTooLongError, match=r"longer than 0\.05 s"):
                    await queries._run(lambda snapshot: snapshot.rows(endless, {}))
            assert (await queries.devices(DeviceQuery())).devices == []
        finally:
            queries.close()
