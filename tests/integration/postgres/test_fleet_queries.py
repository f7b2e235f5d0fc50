"""Lists of devices on PostgreSQL: what a commit writes for them and what it leaves alone, and the time limit."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from controller.adapters.postgres.fleet_queries import PostgresFleetQueries
from controller.adapters.postgres.store import PostgresStore
from controller.domain.device import Device, RuleState
from controller.domain.policy.findings import RuleResult
from controller.ports.fleet_queries import DeviceQuery, QueryTooLongError
from controller.ports.store import StoredReport, StoreWrites
from tests.support.postgres import WHEEL, PostgresServer, PostgresServers, address_of
from tests.support.postgres_store import opened
from tests.support.store import QUICK

pytestmark = pytest.mark.postgres

FAILING = Device(
    "d", 1.0, 1.0, tags=("a",), agent="x", digest="y", rules={"p/r": RuleState(RuleResult.FAIL, 1.0, 1, "it does")}
)
_TABLES = ("device_facets", "device_findings", "device_tags")


@pytest.fixture
def server(postgres_servers: PostgresServers) -> PostgresServer:
    return postgres_servers[WHEEL]


@pytest.fixture
async def store(server: PostgresServer, database: str) -> AsyncIterator[PostgresStore]:
    async with opened(server.url(database)) as found:
        yield found


def _rows(server: PostgresServer, database: str) -> dict[str, list[Any]]:
    """Where the rows of lists are; each one that was written has moved."""
    return {name: server.query(database, f"SELECT ctid::text, xmin::text FROM {name}") for name in _TABLES}


async def test_only_a_change_of_what_lists_are_about_writes_rows_of_them(
    store: PostgresStore, server: PostgresServer, database: str
) -> None:
    await store.commit(StoreWrites(devices=(FAILING,)))
    before = _rows(server, database)
    assert [len(rows) for rows in before.values()] == [1, 1, 1]
    seen = replace(FAILING, last_seen=9.0, accepted=2)
    repeated = replace(seen, rules={"p/r": RuleState(RuleResult.FAIL, 1.0, 2, "it still does")}, counter=4, accepted=4)
    for writes in (
        StoreWrites(seen=(seen,)),
        StoreWrites(reports=(StoredReport(replace(seen, accepted=3), b"{}"),)),
        StoreWrites(devices=(repeated,)),
    ):
        await store.commit(writes)
        assert _rows(server, database) == before
    await store.commit(StoreWrites(devices=(replace(repeated, online=True),)))
    online = _rows(server, database)
    assert [name for name in _TABLES if online[name] != before[name]] == ["device_facets"]
    await store.commit(StoreWrites(devices=(replace(repeated, online=True, rules={}, tags=("b", "c")),)))
    assert [len(rows) for rows in _rows(server, database).values()] == [1, 0, 2]


async def test_what_a_removed_device_left_for_lists_goes_with_it(
    store: PostgresStore, server: PostgresServer, database: str
) -> None:
    await store.commit(StoreWrites(devices=(FAILING,)))
    server.query(database, "DELETE FROM devices")
    assert list(_rows(server, database).values()) == [[], [], []]


async def test_a_query_that_takes_too_long_is_ended_and_the_next_one_answers(
    store: PostgresStore, server: PostgresServer, database: str
) -> None:
    queries = PostgresFleetQueries(address_of(server.url(database)), QUICK, seconds=0.2)
    try:
        for _ in range(3):
            with pytest.raises(QueryTooLongError, match=r"longer than 0\.2 s"):
                await queries._run(lambda snapshot: snapshot.rows("SELECT pg_sleep(60)", {}))
        assert (await queries.devices(DeviceQuery())).devices == []
    finally:
        queries.close()
    assert (await store.fleet_queries.summary()).devices == 0
