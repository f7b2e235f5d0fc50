import asyncio
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.sqlite.store import SqliteStore
from controller.domain.device import Device
from controller.ports.errors import StoreError, StoreFullError
from controller.ports.store import StoredReport, StoreHealth, StoreWrites
from tests.support.fleet_devices import stored_devices
from tests.support.store import (
    NOW,
    QUICK,
    Logged,
    child,
    commit,
    commit_all,
    kept,
    line,
    lock_held,
    opened,
    read_line,
    tell,
)
from tests.support.waiting import eventually

NAMES = [f"name-{number:04d}" for number in range(200)]


def _connection(store: SqliteStore) -> sqlite3.Connection:
    connection = store._writer._connection
    assert connection is not None
    return connection


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_commits_wait_for_another_process_and_are_all_kept_in_order(tmp_path: Path) -> None:
    path, log = tmp_path / "store.db", Logged()
    async with opened(path, log=log) as store, asyncio.TaskGroup() as group:
        async with lock_held(path):
            waiting = group.create_task(commit_all(store, NAMES))
            await eventually(lambda: store.health.trouble != "")
            assert "locked by another process (SQLITE_BUSY" in store.health.trouble
            assert store.health.since == NOW
            assert await stored_devices(store) == []  # reading goes on
            assert not waiting.done()
        await waiting
        assert store.health == StoreHealth()
    assert kept(path) == NAMES
    assert log.events == ["store cannot write", "store writes again"]
    assert log.lines[0][1]["path"] == str(path)


async def test_what_waited_is_written_in_groups(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    options = replace(QUICK, max_group_rows=150)  # a line has 3 rows
    async with opened(path, options) as store, asyncio.TaskGroup() as group:
        statements: list[str] = []
        async with lock_held(path):
            first = group.create_task(commit_all(store, NAMES[:1]))
            await eventually(lambda: store.health.trouble != "")
            waiting = group.create_task(commit_all(store, NAMES[1:]))
            await asyncio.sleep(0)
            _connection(store).set_trace_callback(statements.append)
        await asyncio.gather(first, waiting)
    assert kept(path) == NAMES
    assert statements.count("COMMIT") == 5  # the first alone, then 199 by fifties


async def test_a_caller_who_stops_waiting_takes_nothing_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store, asyncio.TaskGroup() as group:
        async with lock_held(path):
            waiting = [group.create_task(commit(store, line(name))) for name in NAMES[:3]]
            await eventually(lambda: store.health.trouble != "")
            waiting[1].cancel()
        await asyncio.gather(waiting[0], waiting[2])
    assert kept(path) == NAMES[:3]


async def test_one_callers_impossible_data_fails_that_caller_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    nonsense = Device("bad", 1.0, None)  # type: ignore[arg-type]  # what a type checker would have caught
    bad = replace(line("bad"), devices=(nonsense,))
    huge = replace(line("huge"), devices=(Device("huge", 1.0, 1.0, report_seq=2**63),))
    async with opened(path) as store:
        async with lock_held(path):
            everything = asyncio.gather(
                *(store.commit(writes) for writes in (line("a"), bad, line("b"), huge, line("c"))),
                return_exceptions=True,
            )
            await eventually(lambda: store.health.trouble != "")
        outcomes = await everything
        assert store.health == StoreHealth()
    assert [type(outcome) for outcome in outcomes] == [type(None), StoreError, type(None), StoreError, type(None)]
    assert "NOT NULL constraint failed: devices.last_seen" in str(outcomes[1])
    assert isinstance(outcomes[3], StoreError)
    assert isinstance(outcomes[3].__cause__, OverflowError)
    assert kept(path) == ["a", "b", "c"]


async def test_closing_ends_the_wait_of_those_who_cannot_be_written_and_keeps_nothing_of_them(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, replace(QUICK, max_group_rows=3)) as store:
        await store.commit(line("before"))
        async with lock_held(path), asyncio.TaskGroup() as group:
            waiting = [group.create_task(_outcome(store, name)) for name in NAMES[:5]]
            await eventually(lambda: store.health.trouble != "")
            await store.close()
            for outcome in await asyncio.gather(*waiting):
                assert isinstance(outcome, StoreError)
                assert "not written before the store was closed: locked by another process" in str(outcome)
    assert kept(path) == ["before"]


async def _outcome(store: SqliteStore, name: str) -> StoreError | None:
    try:
        await store.commit(line(name))
    except StoreError as error:
        return error
    return None


async def test_closing_first_writes_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, replace(QUICK, max_group_rows=3)) as store, asyncio.TaskGroup() as group:
        waiting = group.create_task(commit_all(store, NAMES))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.close()
        await waiting
    assert kept(path) == NAMES


async def test_memory_is_bounded_while_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    large = StoreWrites(reports=(StoredReport(Device("a", 1.0, 1.0), b"x" * 60_000),))
    options = replace(QUICK, max_waiting_bytes=100_000)
    async with opened(path, options) as store, asyncio.TaskGroup() as group, lock_held(path):
        group.create_task(commit(store, large))
        await eventually(lambda: store.health.trouble != "")  # it is under way, and counts no more
        group.create_task(commit(store, large))
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match=r"too much waits to be written .*locked by another process"):
            await store.commit(large)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as out:
        while True:
            out.write(b"x" * 4096)


async def test_a_full_disk_is_waited_out(small_disk: Path) -> None:
    path, log = small_disk / "store.db", Logged()
    ballast = small_disk / "ballast"
    async with opened(path, log=log) as store, asyncio.TaskGroup() as group:
        await store.commit(line("before"))
        with pytest.raises(OSError, match="No space left"):
            _fill(ballast)
        waiting = group.create_task(commit_all(store, NAMES))
        await eventually(lambda: store.health.trouble != "")
        assert "no room left" in store.health.trouble
        assert not waiting.done()
        ballast.unlink()
        await waiting
        assert store.health == StoreHealth()
    assert kept(path) == ["before", *NAMES]
    assert log.events == ["store cannot write", "store writes again"]


async def test_no_room_is_waited_out_and_has_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store, asyncio.TaskGroup() as group:
        (pages,) = _connection(store).execute("PRAGMA page_count").fetchone()
        _connection(store).execute(f"PRAGMA max_page_count = {pages}")
        waiting = group.create_task(commit_all(store, NAMES))
        await eventually(lambda: store.health.trouble != "")
        assert "no room left (SQLITE_FULL" in store.health.trouble
        assert not waiting.done()
        _connection(store).execute(f"PRAGMA max_page_count = {pages + 1000}")
        await waiting
        _connection(store).execute("PRAGMA max_page_count = 1")
        (pages,) = _connection(store).execute("PRAGMA page_count").fetchone()
        more = StoreWrites(reports=(StoredReport(Device("a", 1.0, 1.0), b"x" * 4096 * 100),))
        last = group.create_task(_refused_as_full(store, more))
        await eventually(lambda: store.health.trouble != "")
        await store.close()
        await last
    assert kept(path) == NAMES


async def _refused_as_full(store: SqliteStore, writes: StoreWrites) -> None:
    with pytest.raises(StoreFullError, match="no room left"):
        await store.commit(writes)


async def test_a_file_that_may_not_grow_is_waited_out(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with child("-m", "tests.integration.store.child", "starve", str(path)) as process:
        assert "reading or writing the file failed (SQLITE_IOERR" in await read_line(process)
        await tell(process, "go on")
        events = (await read_line(process)).split(",")
        assert await process.wait() == 0
    # A new connection folds the log in and so makes a little room, which may be used up again.
    assert events == ["store cannot write", "store writes again"] * (len(events) // 2)
    assert events
    assert kept(path) == ["before", *(f"name-{number}" for number in range(3000))]


async def test_a_connection_that_may_not_write_any_more_is_replaced(tmp_path: Path) -> None:
    path, log = tmp_path / "store.db", Logged()
    async with opened(path, log=log) as store:
        _connection(store).execute("PRAGMA query_only = ON")
        await commit_all(store, NAMES)
    assert kept(path) == NAMES
    assert log.events == ["store cannot write", "store writes again"]
    assert "not writable" in str(log.lines[0][1]["trouble"])


async def test_a_store_that_was_taken_away_is_not_made_anew(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "store.db", tmp_path / "elsewhere.db"
    async with opened(path) as store, asyncio.TaskGroup() as group:
        await store.commit(line("before"))
        _connection(store).execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _connection(store).execute("PRAGMA query_only = ON")  # the next write asks for a new connection
        path.rename(elsewhere)
        waiting = group.create_task(commit_all(store, NAMES))
        await eventually(lambda: "cannot be opened" in store.health.trouble)
        assert not path.exists()
        elsewhere.rename(path)
        await waiting
    assert kept(path) == ["before", *NAMES]
