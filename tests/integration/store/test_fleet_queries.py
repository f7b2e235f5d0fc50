"""The contract of `FleetQueries`: random fleets, and what a filter over all devices in memory finds."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.device import Device
from controller.domain.guards.waivers import Waiver, Waivers
from controller.ports.fleet_queries import MAX_PAGE, DeviceQuery, DeviceSort, FleetQueries
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
        for asked, size in zip(wanted, sizes, strict=True):
            query = replace(asked, severities=SEVERITIES, now=one.clock.at)
            found = expected(devices.values(), query, Waivers(waivers))
            assert await _all(store.fleet_queries, query, size) == found
            page = await store.fleet_queries.devices(replace(query, limit=2, offset=1))
            assert page.devices == found[1:3]
        assert await store.fleet_queries.summary() == expected_summary(devices.values())


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
