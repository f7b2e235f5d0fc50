"""Queries, in threads with read-only connections, so that a slow listing does not delay commits."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from controller.adapters.sql import codec
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite import errors, schema
from controller.domain.device import REPORT_FIELDS
from controller.ports.errors import StoreError

T = TypeVar("T")
_COLUMNS: Final = (
    *(f"devices.{name}" for name in codec.DEVICE_COLUMNS), *(f"reports.{name}" for name in REPORT_FIELDS)
)  # fmt: skip
# Rows for `codec.device_from`.
DEVICES: Final = f"SELECT {', '.join(_COLUMNS)} FROM devices LEFT JOIN reports USING (device_id)"  # noqa: S608 - constants


class ReaderPool:
    """Threads with a read-only connection each, opened on first use."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self._path = path
        self._options = options
        self._pool = ThreadPoolExecutor(options.readers, thread_name_prefix="store-reader")
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Returns the query's result.

        Raises:
            StoreError: closed, or SQLite failed.
        """
        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._pool, self._query, query)
        except RuntimeError as error:
            raise StoreError("the store is closed") from error
        return await waiting

    def close(self) -> None:
        """Waits for running queries, then closes the connections; blocks."""
        self._pool.shutdown()
        for connection in self._open:
            with contextlib.suppress(sqlite3.Error):  # read-only
                connection.close()
        self._open.clear()

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._connection())
        except sqlite3.Error as error:
            raise errors.as_store_error(error, f"cannot read the store {self._path}") from error

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        if found is None:
            found = schema.connect(self._path, self._options, read_only=True)
            self._mine.connection = found
            with self._lock:
                self._open.append(found)
        return found
