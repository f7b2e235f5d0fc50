"""The store cannot write: nothing is acknowledged, health says why, and when it can again nothing is missing."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.sqlite import schema
from controller.domain.audit_kinds import AuditKind
from controller.domain.events import ContainmentOrdered
from controller.domain.policy.model import ContainmentLevel
from tests.support.controller_harness import World, world
from tests.support.reports import full, incoming
from tests.support.store import lock_held

PATIENCE_SECONDS = 20.0
Trouble = Callable[[World, Path], contextlib.AbstractAsyncContextManager[None]]


def run_on_writer(place: World, statement: str) -> None:
    """SQLite itself is made to fail on the connection that writes, which is idle now."""
    found = place.store._writer._connection
    assert found is not None
    found.execute(statement).fetchall()


@contextlib.asynccontextmanager
async def locked(_place: World, path: Path) -> AsyncIterator[None]:
    """Another process holds the lock."""
    async with lock_held(path):
        yield


@contextlib.asynccontextmanager
async def disk_full(place: World, _path: Path) -> AsyncIterator[None]:
    """There is room for no further page: SQLite's own limit, which fails as a full disk does."""
    run_on_writer(place, "PRAGMA max_page_count = 1")
    yield
    run_on_writer(place, "PRAGMA max_page_count = 1000000")


@contextlib.asynccontextmanager
async def read_only(place: World, _path: Path) -> AsyncIterator[None]:
    """Every connection may only read, as on a file system that turned read-only."""
    ordinary = schema.connect

    def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
        made = ordinary(*arguments, **named)
        made.execute("PRAGMA query_only = ON")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "connect", connect)
        run_on_writer(place, "PRAGMA query_only = ON")
        yield


@contextlib.asynccontextmanager
async def taken_away(place: World, path: Path) -> AsyncIterator[None]:
    """The file is not where it was, as when a volume is unmounted."""
    run_on_writer(place, "PRAGMA wal_checkpoint(TRUNCATE)")
    run_on_writer(place, "PRAGMA query_only = ON")  # the next write asks for a new connection
    elsewhere = path.with_name("elsewhere.db")
    await asyncio.to_thread(path.rename, elsewhere)
    yield
    await asyncio.to_thread(elsewhere.rename, path)


TROUBLES: dict[str, tuple[Trouble, str]] = {
    "locked": (locked, "locked by another process"),
    "disk full": (disk_full, "no room left"),
    "read-only": (read_only, "not writable"),
    "taken away": (taken_away, "cannot be opened"),
}


async def until(true: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", TROUBLES)
async def test_reports_wait_unacknowledged_and_are_all_kept_in_the_end(tmp_path: Path, name: str) -> None:
    trouble, words = TROUBLES[name]
    path = tmp_path / "c.db"
    # Enough that it needs new pages of the file.
    others = {f"edge-{number}": ContainmentLevel.NONE for number in range(2, 200)}
    batch = [incoming("edge-1", full("edge-1", 1, 23)), *(incoming(other, full(other, 1, 22)) for other in others)]
    async with world(path) as place, asyncio.TaskGroup() as group:
        async with trouble(place, path):
            taking = group.create_task(place.ingest.take(batch))
            await until(lambda: words in place.store.health.trouble)
            # Not a PUBACK, not a receipt, nothing done at the broker: nothing is promised that is not kept.
            assert (place.link.acknowledged, place.link.sent, place.broker.calls) == ([], [], [])
            assert not taking.done()
            assert place.outbox.queue.pending == 0
        await taking
        await until(lambda: place.store.health.trouble == "")
        assert place.link.acknowledged == batch
        assert [json.loads(raw)["verdict"] for _, raw in place.link.sent] == ["accepted"] * len(batch)
        await place.drain()
        assert place.broker.calls == ["grade edge-1", "restrict edge-1"]
        assert [event for event, _ in place.logged] == ["store cannot write", "store writes again"]
    async with world(path) as place:
        assert {name: place.level(name) for name in place.keeper.devices} == {
            "edge-1": ContainmentLevel.RESTRICTED,
            **others,
        }


@pytest.mark.parametrize("name", ["locked", "read-only", "taken away"])  # one line finds room in the last page
async def test_an_operators_containment_waits_too_and_is_carried_out_once(tmp_path: Path, name: str) -> None:
    trouble, words = TROUBLES[name]
    path = tmp_path / "c.db"
    async with world(path) as place, asyncio.TaskGroup() as group:
        await place.ingest.take([incoming("edge-1", full("edge-1", 1, 22))])
        keeper = place.keeper
        contained = ContainmentOrdered(keeper.new_id(), ContainmentLevel.ISOLATED, "op", "by hand", None)
        async with trouble(place, path):
            handling = group.create_task(keeper.handle("edge-1", contained))
            await until(lambda: words in place.store.health.trouble)
            await place.drain()
            assert place.broker.calls == []
        await handling
        await place.drain()
        assert place.broker.calls == ["isolate edge-1"]
        kinds = await place.audited("edge-1")
        assert kinds == [AuditKind.REPORT_FIRST_ACCEPTED, AuditKind.CONTAINMENT_DECIDED, AuditKind.CONTAINMENT_PROVEN]


async def test_a_kill_while_the_store_cannot_write_leaves_nothing_promised_and_nothing_half_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.db"
    message = incoming("edge-1", full("edge-1", 1, 23))
    async with world(path) as place, asyncio.TaskGroup() as group, locked(place, path):
        taking = group.create_task(place.ingest.take([message]))
        await until(lambda: place.store.health.trouble != "")
        taking.cancel()
        await asyncio.wait([taking])
        assert place.link.acknowledged == []
        # What a machine that lost power now would find.
        await asyncio.to_thread(shutil.copy, path, tmp_path / "copy.db")
    async with world(tmp_path / "copy.db") as place:
        assert place.keeper.devices == {}
        await place.ingest.take([message])  # the broker delivers it again
        await place.drain()
        assert place.level("edge-1") is ContainmentLevel.RESTRICTED
