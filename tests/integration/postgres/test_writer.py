"""The writer on a real PostgreSQL that stops, hangs, is killed, loses answers, or belongs to another controller."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from controller.adapters.postgres import registration, statements
from controller.adapters.postgres.connection import connect
from controller.adapters.postgres.store import PostgresStore, open_store
from controller.adapters.sql.accounts import SqlAccounts
from controller.domain.accounts.account import Account
from controller.domain.device import Device
from controller.ports.errors import ConflictError, StoreError
from controller.ports.store import StoreWrites
from tests.support.fleet_devices import stored_devices
from tests.support.postgres import DEBIAN, WHEEL, PostgresServer, address_of, postgres_server
from tests.support.postgres_proxy import CommitLosingProxy
from tests.support.postgres_store import opened
from tests.support.store import NOW, QUICK, Logged, commit, line
from tests.support.waiting import eventually

pytestmark = pytest.mark.postgres
T = TypeVar("T")


def started(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work)


async def lines_of(store: PostgresStore) -> list[str]:
    """The devices of the audit lines by writer; of each, device and effect have to be there once."""
    names = [one.entry.device_id for one in await store.audit(newest_first=False) if one.entry.device_id]
    assert sorted(one.device_id for one in await stored_devices(store)) == sorted(names)
    assert sorted(one.effect_id for one in await store.effects()) == sorted(f"effect-{name}" for name in names)
    assert (await store.check_audit()).is_intact
    return names


@pytest.mark.parametrize("after_the_server", [True, False], ids=["answer", "commit"])
async def test_a_commit_that_got_lost_is_stored_once(
    server: PostgresServer, database: str, *, after_the_server: bool
) -> None:
    async with CommitLosingProxy(server.port) as proxy, opened(server.url(database, port=proxy.port)) as store:
        await store.commit(line("a"))
        proxy.lose_next(after_the_server=after_the_server)
        await asyncio.gather(store.commit(line("b")), store.commit(line("c")))
        assert proxy.lost.is_set()
        await store.commit(line("d"))
        assert await lines_of(store) == ["a", "b", "c", "d"]


async def test_a_command_whose_commit_got_lost_does_not_repeat_it(server: PostgresServer, database: str) -> None:
    async with opened(server.url(database), None) as store:
        await store.commit(line("a"))
    async with CommitLosingProxy(server.port) as proxy, opened(server.url(database, port=proxy.port), None) as store:
        proxy.lose_next(after_the_server=True)
        with pytest.raises(StoreError, match="may be stored or not"):
            await store.commit(line("b"))
    async with opened(server.url(database), None) as store:
        assert await lines_of(store) == ["a", "b"]


async def test_a_controller_that_ended_is_followed_at_once(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_WAIT", 0.0)
    url = server.url(database)
    async with opened(url) as first:
        await first.commit(line("a"))
        await first.commit(line("b"))
    async with opened(url) as second:
        await second.commit(line("c"))
        assert await lines_of(second) == ["a", "b", "c"]


async def test_a_controller_whose_lease_is_over_is_fenced_by_the_next_and_stores_nothing_more(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url(database)
    async with opened(url) as first:
        await first.commit(line("a"))
        # As after a halt of its machine: it does not know that its time is over.
        monkeypatch.setattr(first._writer, "_on_idle", lambda: 600.0)
        server.query(database, "UPDATE writers SET lease_until = lease_until - interval '1 h'")
        async with opened(url) as second:  # a start fences only whoever has its name
            await second.commit(line("b"))
            watching = started(first.run())
            for name in ("c", "d"):
                with pytest.raises(StoreError, match="another controller has taken over"):
                    await first.commit(line(name))
            with pytest.raises(ExceptionGroup):
                await watching
            assert await lines_of(second) == ["a", "b"]
    # A transaction that the first had begun holds the lock on its row: it is ended.
    async with opened(url) as first:
        await first.commit(line("e"))
        monkeypatch.setattr(first._writer, "_on_idle", lambda: 600.0)
        held = first._writer._connection
        assert held is not None
        held.raw.execute("BEGIN")
        held.execute(registration.LOCK, (first._writer._writer,))
        async with opened(url) as second:
            assert await lines_of(second) == ["a", "b", "e"]


async def test_commands_beside_a_controller_extend_the_same_audit_log(server: PostgresServer, database: str) -> None:
    url = server.url(database, socket_file=True)
    async with opened(url, None) as before:  # no controller has ever run
        await before.commit(line("a"))
    async with opened(url) as controller, opened(url, None) as command:
        for number in range(10):
            await asyncio.gather(controller.commit(line(f"c{number}")), command.commit(line(f"g{number}")))
        names = await lines_of(controller)
    assert sorted(names) == sorted(["a", *(f"{who}{number}" for who in "cg" for number in range(10))])
    assert server.query(database, "SELECT commits FROM writers WHERE writer = 2") == [(10,)]


async def test_a_command_changes_an_account_as_the_controller_left_it(server: PostgresServer, database: str) -> None:
    url = server.url(database)
    async with opened(url) as controller, opened(url, None) as command:
        mine, theirs = SqlAccounts(controller), SqlAccounts(command)
        await mine.add_account(Account("1", "eve", "operator", 1.0, password="old"), StoreWrites())
        begun, go_on = threading.Event(), threading.Event()

        def sign_in(found: Account, _: object) -> Account:
            begun.set()
            go_on.wait(5.0)
            return replace(found, password="new", last_login_at=2.0)

        signing_in = started(mine.change_account("1", sign_in, 2.0, StoreWrites()))
        await asyncio.to_thread(begun.wait, 5.0)
        disabling = started(theirs.change_account("1", lambda one, _: replace(one, enabled=False), 3.0, StoreWrites()))
        assert not (await asyncio.wait((disabling,), timeout=0.3))[0]
        go_on.set()
        await asyncio.gather(signing_in, disabling)
        found = await mine.account("1")
        assert found is not None
        assert (found.enabled, found.password, found.last_login_at) == (False, "new", 2.0)


@pytest.mark.slow
async def test_a_controller_keeps_its_lease_while_somebody_else_has_to_be_alone(
    server: PostgresServer, database: str
) -> None:
    async with opened(url := server.url(database)) as controller:
        with contextlib.closing(connect(address_of(url), "halted")) as halted:
            halted.raw.execute("SET idle_in_transaction_session_timeout = 0")
            registration.begin_alone(halted, guest=True)
            waiting = started(controller.write(lambda connection: connection.execute("SELECT 1").fetchone()))
            for _ in range(20):
                await asyncio.sleep(0.3)
                assert controller._writer.lease_end > time.monotonic()
            assert not waiting.done()
        assert await waiting == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [WHEEL, DEBIAN])
async def test_a_server_that_is_killed_stopped_or_hangs_is_waited_for(kind: str) -> None:
    """What was acknowledged is there after a kill; what waits is stored once when the server is back."""
    with postgres_server(kind) as server:
        log = Logged()
        async with opened(server.url(database := server.new_database()), log=log) as store:
            await store.commit(line("a"))
            for number, (away, back) in enumerate(
                ((server.kill, server.start), (server.stop, server.start), (server.pause, server.resume))
            ):
                await asyncio.to_thread(away)
                waiting = [started(commit(store, line(f"w{number}{n}"))) for n in range(3)]
                reading = started(store.audit())
                await eventually(lambda: store.health.trouble != "", "the trouble is told", seconds=30.0)
                assert store.health.since > 0
                assert not any(one.done() for one in (*waiting, reading))
                with pytest.raises(StoreError, match="cannot read the store"):
                    await asyncio.wait_for(_impatient(store, is_paused=away == server.pause), 60.0)
                await asyncio.to_thread(back)
                await asyncio.gather(*waiting, reading)
                await eventually(lambda: store.health.trouble == "", "the trouble is over")
            assert await lines_of(store) == ["a", *(f"w{number}{n}" for number in range(3) for n in range(3))]
            assert server.query(database, "SELECT count(*) FROM writers WHERE NOT fenced") == [(1,)]
        assert log.events[:2] == ["store cannot write", "store writes again"]


async def _impatient(store: PostgresStore, *, is_paused: bool) -> None:
    if is_paused:
        raise StoreError("cannot read the store")  # a server that is halted takes connections, and does not answer
    await store.with_patience(0.2).audit()


@pytest.mark.slow
async def test_a_store_is_closed_in_time_while_the_server_hangs() -> None:
    with postgres_server(WHEEL) as server:
        store = await open_store(
            address_of(server.url(server.new_database())), name="x", now=lambda: NOW, log=Logged(), options=QUICK
        )
        await store.commit(line("a"))
        await asyncio.to_thread(server.pause)
        waiting = started(commit(store, line("b")))
        reading = started(store.audit())
        await asyncio.sleep(0)
        await asyncio.wait_for(store.close(), 30.0)
        for one in (waiting, reading):
            with pytest.raises(StoreError):
                await one
        server.resume()


@pytest.mark.slow
async def test_a_commit_that_waits_for_a_standby_beyond_its_connection_is_written_once() -> None:
    with postgres_server(WHEEL) as server:
        async with opened(server.url(server.new_database())) as store:
            await store.commit(line("a"))
            server.query("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            server.query("postgres", "SELECT pg_reload_conf()")
            await asyncio.sleep(0.5)
            waiting = started(commit(store, line("b")))
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            await eventually(lambda: server.query("postgres", waits) != [(0,)], "it waits for the standby")
            assert store._writer._connection is not None
            store._writer._connection.cut()
            await eventually(lambda: store.health.trouble != "", "the connection is missed")
            await asyncio.sleep(1.0)
            assert not waiting.done()
            server.query("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
            server.query("postgres", "SELECT pg_reload_conf()")
            await asyncio.wait_for(waiting, 30.0)
            assert await lines_of(store) == ["a", "b"]


@pytest.mark.parametrize("conflicts", [False, True], ids=["job", "conflict"])
async def test_a_writer_that_waits_for_a_device_has_not_locked_the_row_that_all_share(
    server: PostgresServer, database: str, *, conflicts: bool
) -> None:
    """Another writer locks the two in the order that is common to all: neither waits for the other."""
    async with opened(url := server.url(database)) as store:
        await store.commit(line("a"))
        await store.commit(line("b"))
        gate = threading.Event()
        jobs: list[asyncio.Task[Any]] = [started(store.write(lambda _: gate.wait(5.0)))]
        if conflicts:
            a = (Device("a", 1.0, 2.0),)
            others = (StoreWrites(devices=a, versions={"a": (version, version + 1)}) for version in (90, 80))
            jobs += [started(commit(store, one)) for one in (StoreWrites(guards_version=(0, 1)), *others)]
        else:
            jobs.append(started(store.write(lambda connection: connection.execute(statements.RAISE_BOOKS).rowcount)))
        jobs.append(started(commit(store, StoreWrites(devices=(Device("b", 1.0, 3.0),)))))
        await asyncio.sleep(0)  # all are queued
        with contextlib.closing(connect(address_of(url), "other")) as other_writer:
            other_writer.raw.execute("BEGIN; SET LOCAL lock_timeout = '500ms'")
            other_writer.execute("SELECT 1 FROM contacts WHERE device_id = 'b' FOR UPDATE")
            gate.set()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(other_writer.execute, "UPDATE fleet SET books_version = books_version + 1")
            assert not jobs[-1].done()
            other_writer.raw.execute("COMMIT")
        found = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(one) for one in found if isinstance(one, BaseException)] == [
            ConflictError,
            ConflictError,
        ] * conflicts
