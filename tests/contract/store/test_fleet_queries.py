"""The contract of `FleetQueries`: random fleets, and what a filter over all devices in memory finds."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.sql.store import SqlStore
from controller.domain.device import Device, RuleState
from controller.domain.guards.waivers import Waiver, Waivers
from controller.domain.policy.findings import RuleResult
from controller.ports.fleet_queries import MAX_PAGE, DeviceFilter, DeviceQuery, DeviceSort, FleetQueries
from controller.ports.store import StoreWrites
from tests.contract.store.conftest import KINDS, StorePlace
from tests.support.fleet_devices import devices_of
from tests.support.fleet_oracle import EVENTS, FEW, SEVERITIES, WAIVERS, RandomFleet, expected, expected_summary

if TYPE_CHECKING:
    from tests.support.postgres import PostgresServers

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
    events: list[Any], waivers: list[Waiver], wanted: list[DeviceQuery], sizes: list[int], place: StorePlace
) -> None:
    async with place.opened() as store:
        one = RandomFleet.over(store)
        await one.grant(waivers)
        await one.play(events)
        devices, queries = devices_of(one.fleet), store.fleet_queries
        for asked, size in zip(wanted, sizes, strict=True):
            query = replace(asked, severities=SEVERITIES, now=one.clock.at)
            found = expected(devices.values(), query, Waivers(waivers))
            assert await _all(queries, query, size) == found
            page = await queries.devices(replace(query, limit=2, offset=1))
            assert page.devices == found[1:3]
        assert await queries.summary() == expected_summary(devices.values())


@pytest.mark.parametrize("kind", KINDS)
@given(events=EVENTS, waivers=WAIVERS, wanted=QUERIES, sizes=st.lists(st.integers(1, 8), min_size=6, max_size=6))
@settings(max_examples=25)
def test_a_list_is_what_a_filter_over_all_devices_finds(
    kind: str,
    postgres_servers: "PostgresServers",
    events: list[Any],
    waivers: list[Waiver],
    wanted: list[DeviceQuery],
    sizes: list[int],
) -> None:
    server = None if kind == "sqlite" else postgres_servers[kind]
    with tempfile.TemporaryDirectory() as folder:
        place = StorePlace(kind, Path(folder) / "store.db", server)
        asyncio.run(_compare(events, waivers, wanted, sizes, place))
        if server is not None:
            server.query("postgres", f"DROP DATABASE {place.database}")


@pytest.mark.parametrize("query", [DeviceQuery(limit=0), DeviceQuery(limit=MAX_PAGE + 1), DeviceQuery(offset=-1)])
async def test_a_page_without_bounds_is_refused(store: SqlStore, query: DeviceQuery) -> None:
    with pytest.raises(ValueError, match="between 1 and"):
        await store.fleet_queries.devices(query)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\\u0000", "\\\\\U0001f600\\ud83d\udfff", "\udc00\ud800"])
async def test_no_text_of_a_device_keeps_it_from_being_stored_or_listed(store: SqlStore, text: str) -> None:
    rule = RuleState(RuleResult.UNKNOWN, 1.0, 1, text)
    device = Device("edge-1", 1.0, 2.0, tags=("hall",), rules={"p/r": rule})
    await store.commit(StoreWrites(devices=(device,)))
    for where in (DeviceFilter(tag="hall"), DeviceFilter(rule="r", result=RuleResult.UNKNOWN)):
        found = await store.fleet_queries.devices(DeviceQuery(where))
        assert found.devices == [device]
    assert sum((await store.fleet_queries.summary()).reasons.values()) == 1
    asked = text.encode(errors="replace").decode()  # as a request has it
    for wrong in (DeviceFilter(search=asked), DeviceFilter(device_class=asked), DeviceFilter(rule=f"{asked}/r")):
        assert (await store.fleet_queries.devices(DeviceQuery(wrong))).devices == []
