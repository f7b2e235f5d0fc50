"""Faults of a controller's store: each is a context manager, entered while the store is idle."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.sqlite import schema
from tests.support.controller_harness import ControllerHarness
from tests.support.store import lock_held

StoreFault = Callable[[ControllerHarness, Path], contextlib.AbstractAsyncContextManager[None]]


def _run_on_writer(harness: ControllerHarness, statement: str) -> None:
    """Makes SQLite itself fail on the connection that writes."""
    found = harness.store._writer._connection
    assert found is not None
    found.execute(statement).fetchall()


@contextlib.asynccontextmanager
async def store_locked(_harness: ControllerHarness, path: Path) -> AsyncIterator[None]:
    """Another process holds the lock."""
    async with lock_held(path):
        yield


@contextlib.asynccontextmanager
async def store_disk_full(harness: ControllerHarness, _path: Path) -> AsyncIterator[None]:
    """SQLite's own limit of pages is reached, which fails as a full disk does."""
    _run_on_writer(harness, "PRAGMA max_page_count = 1")
    yield
    _run_on_writer(harness, "PRAGMA max_page_count = 1000000")


@contextlib.asynccontextmanager
async def store_read_only(harness: ControllerHarness, _path: Path) -> AsyncIterator[None]:
    """Every connection may only read, as on a file system that turned read-only."""
    ordinary = schema.connect

    def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
        made = ordinary(*arguments, **named)
        made.execute("PRAGMA query_only = ON")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "connect", connect)
        _run_on_writer(harness, "PRAGMA query_only = ON")
        yield


@contextlib.asynccontextmanager
async def store_missing(harness: ControllerHarness, path: Path) -> AsyncIterator[None]:
    """The file is gone, as when a volume is unmounted."""
    _run_on_writer(harness, "PRAGMA wal_checkpoint(TRUNCATE)")
    _run_on_writer(harness, "PRAGMA query_only = ON")  # the next write asks for a new connection
    elsewhere = path.with_name("elsewhere.db")
    await asyncio.to_thread(path.rename, elsewhere)
    yield
    await asyncio.to_thread(elsewhere.rename, path)


STORE_FAULTS: dict[str, tuple[StoreFault, str]] = {
    "locked": (store_locked, "locked by another process"),
    "disk full": (store_disk_full, "no room left"),
    "read-only": (store_read_only, "not writable"),
    "taken away": (store_missing, "cannot be opened"),
}
