"""Rows of devices on a real PostgreSQL: pages, locks of two writers, and answers that got lost beside a conflict."""

import asyncio
import random
import time
from dataclasses import replace

import pytest

from controller.adapters.postgres import device_rows
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.audit_chain import WritingConnection
from controller.adapters.postgres.connection import connect
from controller.adapters.postgres.statements import work_of
from controller.domain.device import Device, RuleState
from controller.domain.policy.findings import RuleResult
from controller.ports.errors import ConflictError
from controller.ports.store import StoredReport, StoreWrites
from tests.support.postgres import PostgresServer, address_of
from tests.support.postgres_proxy import CommitLosingProxy
from tests.support.postgres_store import opened
from tests.support.store import QUICK, commit, line

pytestmark = pytest.mark.postgres
FAILING = {"p/r": RuleState(RuleResult.FAIL, 1.0, 1, "telnet is on", 1, 0.0)}


def _fleet(count: int) -> list[Device]:
    return [Device(f"d{number:03}", 1.0, 1.0, rules=FAILING) for number in range(count)]


async def test_what_a_changed_report_or_a_contact_writes_stays_on_its_page(
    server: PostgresServer, database: str
) -> None:
    """With a deadline and a place in the queue that stay as they are: no index is touched."""
    fleet = _fleet(100)
    names = [device.device_id for device in fleet]
    deadlines, waits_in = dict.fromkeys(names, 9.0), dict.fromkeys(names, "")

    def writes(chosen: list[Device], before: int, after: int) -> StoreWrites:
        versions = {one.device_id: (before, after) for one in chosen}
        return StoreWrites(devices=tuple(chosen), versions=versions, deadlines=deadlines, waits_in=waits_in)

    async with opened(server.url(database)) as store:
        await store.commit(writes(fleet, 0, 1))
        for turn in range(1, 6):
            for start in range(5):
                rules = {"p/r": replace(FAILING["p/r"], streak=turn)}
                chosen = [replace(one, accepted=turn, digest=f"{turn}", rules=rules) for one in fleet[start::5]]
                reports = tuple(StoredReport(device, b"{}" * turn) for device in chosen)
                await store.commit(replace(writes(chosen, turn, turn + 1), reports=reports))
                seen = tuple(replace(device, last_seen=9.5) for device in chosen)
                versions = {one.device_id: (turn + 1, turn + 1) for one in chosen}
                await store.commit(StoreWrites(seen=seen, versions=versions))
        assert sorted(await store.due(9.0, None, 1000)) == names
    # A closed session has told what it did.
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{}'"
    for table, updates in (("devices", 500), ("contacts", 1000)):
        assert _told(server, database, query.format(table)) == (updates, updates), table


def _told(server: PostgresServer, database: str, query: str) -> tuple[int, ...]:
    """Statistics come a moment later: the answer that is given twice."""
    last: tuple[int, ...] = ()
    for _ in range(50):
        (found,) = server.query(database, query)
        if found == last and found[0]:
            break
        last = found
        time.sleep(0.05)
    return last


@pytest.mark.parametrize("after_the_server", [True, False], ids=["answer", "commit"])
async def test_a_commit_that_got_lost_is_stored_once_and_no_conflict_with_itself(
    server: PostgresServer, database: str, *, after_the_server: bool
) -> None:
    def decided(before: int, after: int) -> StoreWrites:
        return replace(line("a"), effects=(), audit=(), versions={"a": (before, after)})

    async with CommitLosingProxy(server.port) as proxy, opened(server.url(database, port=proxy.port)) as store:
        await store.commit(decided(0, 1))
        proxy.lose_next(after_the_server=after_the_server)
        found = await asyncio.gather(
            store.commit(decided(1, 2)),
            store.commit(decided(7, 8)),
            store.commit(decided(2, 3)),
            return_exceptions=True,
        )
        assert proxy.lost.is_set()
        assert [type(one) for one in found] == [type(None), ConflictError, type(None)]
        assert await store.versions(["a"]) == {"a": 3}


async def test_what_another_writer_did_while_an_answer_was_lost_is_a_conflict(
    server: PostgresServer, database: str
) -> None:
    def decided(before: int, after: int) -> StoreWrites:
        return StoreWrites(devices=(Device("a", 1.0, float(after)),), versions={"a": (before, after)})

    async with (
        CommitLosingProxy(server.port) as proxy,
        opened(server.url(database, port=proxy.port)) as store,
        opened(server.url(database), None) as beside,
    ):
        await store.commit(decided(0, 1))
        proxy.lose_next(after_the_server=False)
        waiting = asyncio.get_running_loop().create_task(commit(store, decided(1, 2)))
        await proxy.lost.wait()
        other = await asyncio.gather(beside.commit(decided(1, 3)), waiting, return_exceptions=True)
        assert sorted(type(one).__name__ for one in other) == ["ConflictError", "NoneType"]
        ((device, version),) = await store.load(["a"])
        assert (version, device.last_seen) in {(2, 2.0), (3, 3.0)}


async def test_two_writers_of_the_same_devices_do_not_wait_for_each_other_for_ever(
    server: PostgresServer, database: str
) -> None:
    """Each decides about the same devices in an order of its own; one of two is refused, and none is a deadlock."""
    fleet = _fleet(60)
    async with opened(server.url(database)) as store:
        versions = {device.device_id: (0, 1) for device in fleet}
        await store.commit(StoreWrites(devices=tuple(fleet), versions=versions))
    address = address_of(server.url(database))
    counts = await asyncio.gather(*(asyncio.to_thread(_write_again_and_again, address, fleet, n) for n in (1, 2, 3)))
    assert min(written for written, _ in counts) > 0
    assert sum(refused for _, refused in counts) > 0
    deadlocks = server.query(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert deadlocks == [(0,)]


def _write_again_and_again(address: PostgresAddress, fleet: list[Device], writer: int) -> tuple[int, int]:
    """Returns how many transactions were written and refused."""
    connection = WritingConnection(connect(address, "tests"))
    draw, numbers, written, refused = random.Random(writer), iter(range(writer << 40, (writer << 40) + 10_000)), 0, 0
    try:
        for _ in range(60):
            known = device_rows.versions(connection, [one.device_id for one in fleet])
            chosen = draw.sample(fleet, 30)
            versions = {one.device_id: (known[one.device_id],) * 2 for one in chosen}
            versions |= {one.device_id: (known[one.device_id], next(numbers)) for one in chosen[:10]}
            work = work_of(StoreWrites(devices=tuple(chosen[:10]), seen=tuple(chosen[10:]), versions=versions), QUICK)
            connection.raw.execute("BEGIN")
            try:
                work.run(connection)
            except ConflictError:
                connection.raw.execute("ROLLBACK")
                refused += 1
            else:
                connection.raw.execute("COMMIT")
                written += 1
    finally:
        connection.close()
    return written, refused
