"""The contract of `FleetQueries`: random fleets, and what a filter over all devices in memory finds."""

import asyncio
import contextlib
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.fleet_queries import SqliteFleetQueries
from controller.domain.device import Device
from controller.domain.guards.waivers import Waiver, Waivers
from controller.ports.fleet_queries import MAX_PAGE, DeviceQuery, DeviceSort, FleetQueries, QueryTooLongError
from controller.service.fleet_filter import FleetFilter
from tests.support.fleet_oracle import EVENTS, FEW, SEVERITIES, WAIVERS, RandomFleet, expected, expected_summary
from tests.support.store import opened

QUERIES = st.lists(
    st.builds(DeviceQuery, where=FEW, sort=st.sampled_from(DeviceSort), descending=st.booleans()),
    min_size=6,
    max_size=6,
)


async def _all(queries: FleetQueries, query: DeviceQuery, size: int) -> list[Device]:
    """Every device, page by page."""
    found: list[Device] = []
    while True:
        page = await queries.devices(replace(query, limit=size))
        found += page.devices
        if page.following is None:
            assert page.total == len(found)
            return found
        assert len(page.devices) == size
        query = replace(query, after=page.following)


async def _compare(
    events: list[Any], waivers: list[Waiver], wanted: list[DeviceQuery], sizes: list[int], place: Path
) -> None:
    async with opened(place / "store.db") as store:
        one = RandomFleet.over(store)
        await one.grant(waivers)
        await one.play(events)
        devices = one.fleet.devices
        for queries in (store.fleet_queries, FleetFilter(one.fleet)):
            for asked, size in zip(wanted, sizes, strict=True):
                query = replace(asked, severities=SEVERITIES, now=one.clock.at)
                found = expected(devices.values(), query, Waivers(waivers))
                assert await _all(queries, query, size) == found
                page = await queries.devices(replace(query, limit=2, offset=1))
                assert page.devices == found[1:3]
            assert await queries.summary() == expected_summary(devices.values())


@given(EVENTS, WAIVERS, QUERIES, st.lists(st.integers(1, 8), min_size=6, max_size=6))
@settings(max_examples=25)
def test_a_list_is_what_a_filter_over_all_devices_finds(
    events: list[Any], waivers: list[Waiver], wanted: list[DeviceQuery], sizes: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare(events, waivers, wanted, sizes, Path(folder)))


@pytest.mark.parametrize("query", [DeviceQuery(limit=0), DeviceQuery(limit=MAX_PAGE + 1), DeviceQuery(offset=-1)])
async def test_a_page_without_bounds_is_refused(tmp_path: Path, query: DeviceQuery) -> None:
    async with opened(tmp_path / "store.db") as store:
        with pytest.raises(ValueError, match="between 1 and"):
            await store.fleet_queries.devices(query)


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
        assert await store.fleet_queries.summary() == expected_summary(one.fleet.devices.values())
        one.fleet.store = store
        await one.play([("Edge-2", "report", 4, 1.0), ("Edge-1", "label", 5, 1.0)])
        assert await store.fleet_queries.summary() == expected_summary(one.fleet.devices.values())


async def test_a_query_that_takes_too_long_is_ended_and_the_next_one_answers(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    async with opened(tmp_path / "store.db") as store:
        queries = SqliteFleetQueries(store.path, StoreOptions(), seconds=0.05)
        try:
            for _ in range(3):
                with pytest.raises(QueryTooLongError, match=r"longer than 0\.05 s"):
                    await queries._run(lambda connection: connection.execute(endless).fetchone())
            assert (await queries.devices(DeviceQuery())).devices == []
        finally:
            queries.close()
