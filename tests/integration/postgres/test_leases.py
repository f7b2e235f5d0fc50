"""Several controllers on one real PostgreSQL: who holds which buckets, who leads, and who is fenced."""

import asyncio
import contextlib
import itertools
import time

import pytest

from controller.adapters.postgres import leases, registration
from controller.adapters.postgres.connection import connect
from controller.adapters.postgres.store import DEFAULTS, PostgresStore, open_store
from controller.adapters.sql.connection import WriteJob
from controller.domain.audit_kinds import AuditKind
from controller.ports.errors import StoreError
from controller.ports.leases import ALL_BUCKETS, bucket_of
from tests.support.postgres import PostgresServer, address_of
from tests.support.postgres_leases import leases_of, running
from tests.support.postgres_store import opened
from tests.support.store import NOW, QUICK, Logged, line
from tests.support.waiting import eventually

pytestmark = pytest.mark.postgres


def halt(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing renews the lease, as if the process were stopped."""
    monkeypatch.setattr(store._writer, "_renew", lambda _connection, _writer: None)


def end_lease(server: PostgresServer, database: str, name: str) -> None:
    server.query(
        database, f"UPDATE writers SET lease_until = lease_until - interval '1 h' WHERE name = '{name}' AND NOT fenced"
    )


async def test_controllers_share_the_buckets_evenly_and_one_leads(server: PostgresServer, database: str) -> None:
    url = server.url(database)
    async with running(url, "a") as first:
        a = leases_of(first)
        await eventually(lambda: (a.buckets, a.is_leader, a.leader_epoch) == (ALL_BUCKETS, True, 1), "it has all")
        assert 2.0 < a.lease_left() <= 3.0
        assert await first.warnings() == (
            "PostgreSQL has no synchronous standby: a failover loses reports that were acknowledged",
        )
        async with running(url, "b") as second, running(url, "c") as third:
            b, c = leases_of(second), leases_of(third)
            await eventually(lambda: [len(one.buckets) for one in (a, b, c)] == [86, 85, 85], "they share")
            assert a.buckets | b.buckets | c.buckets == ALL_BUCKETS
            assert [one.is_leader for one in (a, b, c)] == [True, False, False]
            found = await b.controllers()
            shown = [(one.name, one.run, one.version, one.is_leader, one.buckets, one.pending) for one in found]
            assert shown == [
                ("a", 2, "1.2", True, 86, 0), ("b", 3, "1.2", False, 85, 0), ("c", 4, "1.2", False, 85, 0)
            ]  # fmt: skip
            assert all(0 < one.lease_left <= 3.0 and abs(one.clock_offset) < 0.5 for one in found)
        await eventually(lambda: a.buckets == ALL_BUCKETS, "what they had came back")


async def test_one_that_still_starts_keeps_nothing_from_the_others(server: PostgresServer, database: str) -> None:
    url = server.url(database)
    starting = await open_store(address_of(url), name="a", now=lambda: NOW, log=Logged(), options=QUICK)
    async with running(url, "b") as second:
        b = leases_of(second)
        await eventually(lambda: b.is_leader and b.buckets == ALL_BUCKETS, "the other has all")
        server.query(database, "NOTIFY cordon_leases")
        await asyncio.sleep(0.2)
        assert (b.buckets, leases_of(starting).buckets) == (ALL_BUCKETS, frozenset())
        await starting.close()


async def test_another_leads_at_once_when_the_leader_ends(server: PostgresServer, database: str) -> None:
    url = server.url(database)
    async with contextlib.AsyncExitStack() as stack:
        first = running(url, "a")
        leader = await first.__aenter__()
        await eventually(lambda: leases_of(leader).is_leader, "the first one leads")
        second = await stack.enter_async_context(running(url, "b"))
        changes = leases_of(second).changes()
        await anext(changes)
        began = time.monotonic()
        await first.__aexit__(None, None, None)
        while not leases_of(second).is_leader:
            await anext(changes)
        assert time.monotonic() - began < 3.0  # no lease had to end
        assert leases_of(second).leader_epoch == 2
        await eventually(lambda: leases_of(second).buckets == ALL_BUCKETS, "it adopts everything")


@pytest.mark.parametrize("in_transaction", [False, True], ids=["idle", "in_transaction"])
async def test_a_controller_whose_lease_is_over_is_fenced_adopted_and_noted(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch, *, in_transaction: bool
) -> None:
    monkeypatch.setattr(leases, "_SEEN_FOR", 0.0)
    url = server.url(database)
    first = await open_store(address_of(url), name="a", now=lambda: NOW, log=Logged(), options=QUICK)
    await first._writer.submit(WriteJob(lambda connection: registration.claim(connection, 2)))
    async with running(url, "b") as second:
        await first.commit(line("x"))
        halt(first, monkeypatch)
        end_lease(server, database, "a")
        if in_transaction:  # it holds the lock on its row
            held = first._writer._connection
            assert held is not None
            held.raw.execute("BEGIN")
            held.execute(registration.LOCK, (2,))
        b = leases_of(second)
        await eventually(lambda: b.fenced and b.is_leader and b.buckets == ALL_BUCKETS, "the other takes over")
        (noted,) = await second.audit(kind=AuditKind.CONTROLLER_FENCED)
        assert noted.entry.detail == {"name": "a", "run": 2, "last": "2-1"}
        with pytest.raises(StoreError, match="another controller has taken over"):
            await first.commit(line("y"))
        with pytest.raises(ExceptionGroup) as stopped:
            await first.run()
        assert "another controller has taken over" in str(stopped.value.exceptions[0])
        assert [one.name for one in await b.controllers()] == ["b"]
        checked = await second.check_audit()
        assert (checked.flaws, checked.heads.chains[2].seq) == ((), 1), "nothing was added to the chain of the other"
        assert 2 in checked.heads.anchored
    await first.close()


async def test_nobody_fences_itself_or_those_that_had_no_time_to_renew_after_the_server_was_away(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url(database)
    silent = await open_store(address_of(url), name="a", now=lambda: NOW, log=Logged(), options=QUICK)
    halt(silent, monkeypatch)
    end_lease(server, database, "a")
    began = time.monotonic()
    async with running(url, "b") as second:
        b = leases_of(second)
        await eventually(lambda: b.is_leader, "what is free is taken at once")
        assert b.fenced == 0
        assert time.monotonic() - began < 3.0
    await silent.close()


async def test_nobody_judges_before_the_others_had_time_to_renew(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, told = 1000.0, NOW
    store = await open_store(address_of(server.url(database)), name="a", now=lambda: NOW, log=Logged(), options=QUICK)
    monkeypatch.setattr(time, "monotonic", lambda: clock)

    def looks(seconds: int, of_server: float = 1.0, of_here: float = 1.0) -> list[bool]:
        nonlocal clock, told
        found = []
        for _ in range(seconds):
            clock, told = clock + of_here, told + of_server
            found.append(leases_of(store)._may_judge(told))
        return found

    assert looks(6) == [False] * 4 + [True] * 2
    assert looks(5, of_server=3.0) == [False] * 5, "its clock leaps"
    assert looks(5) == [False] * 3 + [True] * 2
    assert looks(1, of_server=4.0, of_here=4.0) + looks(5) == [False] * 4 + [True] * 2, "it was halted"
    monkeypatch.undo()
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "seconds"), [("stop", 7.0), ("pause", 4.6)])
async def test_all_controllers_live_on_after_the_server_was_away(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch, how: str, seconds: float
) -> None:
    monkeypatch.setattr("tests.support.postgres_leases.QUICK", DEFAULTS)
    url, acknowledged, is_over = server.url(database), set[str](), False

    async def work(store: PostgresStore, name: str) -> None:
        number = 0
        while not is_over:
            number += 1
            await store.commit(line(f"{name}{number}"))
            acknowledged.add(f"{name}{number}")
            await asyncio.sleep(0.01)

    async with running(url, "a") as a, running(url, "b") as b, running(url, "c") as c:
        await eventually(lambda: [len(leases_of(one).buckets) for one in (a, b, c)] == [86, 85, 85], "they share")
        async with asyncio.TaskGroup() as group:
            working = [group.create_task(work(one, name)) for one, name in ((a, "a"), (b, "b"))]
            await asyncio.sleep(5.0)  # each would judge the others by now
            away, back = (server.pause, server.resume) if how == "pause" else (server.stop, server.start)
            await asyncio.to_thread(away)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(back)
            before = len(acknowledged)
            await asyncio.sleep(6.0)
            assert not any(one.done() for one in working)
            is_over = True
        assert len(acknowledged) > before + 10
        assert [one.name for one in await leases_of(c).controllers()] == ["a", "b", "c"]
        assert [len(leases_of(one).buckets) for one in (a, b, c)] == [86, 85, 85]
        assert await c.audit(kind=AuditKind.CONTROLLER_FENCED) == []
    found = {row[0] for row in server.query(database, "SELECT device_id FROM outbox")}
    assert acknowledged <= found


async def test_a_controller_whose_event_loop_is_stuck_does_not_renew_its_lease(
    server: PostgresServer, database: str
) -> None:
    store = await open_store(address_of(server.url(database)), name="a", now=lambda: NOW, log=Logged(), options=QUICK)
    writer, before = store._writer, store._writer.lease_end
    writer.loop_seen_at = time.monotonic() - 60.0
    assert writer._connection is not None
    writer._renew(writer._connection, 2)
    assert writer.lease_end == before
    writer.loop_seen_at = time.monotonic()
    writer._renew(writer._connection, 2)
    assert writer.lease_end > before
    await store.close()


async def test_what_somebody_took_away_in_the_rows_is_noticed_and_taken_again(
    server: PostgresServer, database: str
) -> None:
    async with running(server.url(database), "a") as store:
        a = leases_of(store)
        await eventually(lambda: a.is_leader, "it has all")
        server.query(database, "UPDATE fleet SET leader = 0")
        server.query(database, "UPDATE buckets SET writer = 0 WHERE bucket < 10")
        server.query(database, "NOTIFY cordon_leases")
        await eventually(lambda: a.leader_epoch >= 2 and a.buckets == ALL_BUCKETS, "it has them again")
        assert a.is_leader


async def test_two_of_one_name_do_not_run_at_once(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_WAIT", 0.0)
    async with running(server.url(database), "a"):
        with pytest.raises(StoreError, match=r"a controller of the same name, a, since 20.*\[controller\] name"):
            async with running(server.url(database), "a"):
                pass


async def test_what_is_decided_for_a_bucket_of_another_is_handed_to_it(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LOOK_EVERY", 60.0)  # all that is known is what they tell each other
    url = server.url(database)
    async with running(url, "a") as first, running(url, "b") as second:
        a, b = leases_of(first), leases_of(second)
        await eventually(lambda: len(a.buckets) == len(b.buckets) == 128, "they share")
        bucket = min(b.buckets)
        devices = (name for name in (f"d{number}" for number in itertools.count()) if bucket_of(name) == bucket)
        told = []
        handed = b.devices_handed_over()
        for _ in range(3):
            told.append(next(devices))
            await first.commit(line(told[-1]))
            assert await anext(handed) == {told[-1]}
        assert [one.device_id for one in await second.effects(b.buckets)] == told
        assert await first.effects(a.buckets) == []
        assert [one.device_id for one in await first.effects(devices=[told[0], "other"])] == told[:1]


async def test_buckets_are_given_away_after_what_is_under_way_ended(server: PostgresServer, database: str) -> None:
    url = server.url(database)
    async with running(url, "a") as first:
        a, gate, asked = leases_of(first), asyncio.Event(), asyncio.Event()
        given: list[frozenset[int]] = []

        async def quiesce(buckets: frozenset[int]) -> None:
            given.append(buckets)
            asked.set()
            assert not buckets & a.buckets
            await gate.wait()

        a.before_release(quiesce)
        async with running(url, "b") as second:
            await asked.wait()
            assert leases_of(second).buckets == frozenset()
            gate.set()
            await eventually(lambda: leases_of(second).buckets == given[0], "the other has them")
            assert len(given[0]) == 128


async def test_a_clock_that_is_wrong_stops_all_deciding_until_it_is_right(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url(database)
    async with running(url, "a") as store:
        await store.commit(line("x"))
        with monkeypatch.context() as wrong:
            wrong.setattr(registration, "wall_clock", lambda: time.time() + 2.0)
            waiting = store.commit(line("y"))
            assert isinstance(waiting, asyncio.Future)
            await eventually(lambda: "2.0 s ahead of that of PostgreSQL" in store.health.trouble, "it says so")
            assert not waiting.done()
            with pytest.raises(StoreError, match="NTP"):
                await open_store(address_of(url), name="b", now=lambda: NOW, log=Logged(), options=QUICK)
        await waiting
        assert store.health.trouble == ""


async def test_a_run_of_the_same_number_in_another_database_is_left_alone(
    server: PostgresServer, database: str
) -> None:
    url = server.url(database)
    async with opened(server.url(server.new_database())) as elsewhere, opened(url) as store:
        with contextlib.closing(connect(address_of(url), "other")) as other:
            other.raw.execute("BEGIN")  # the row is locked: its run renews nothing
            other.execute("UPDATE writers SET lease_until = lease_until - interval '1 hour'")
            assert other.execute(registration.TERMINATE, (2,)).fetchall() == [], "nobody ends its own connection"
            assert other.execute(registration.TERMINATE, (0,)).fetchall() == [(True,)]
            other.raw.execute("ROLLBACK")
        for one in (elsewhere, store):
            assert one._writer._writer == 2
            await one.commit(line("x"))
