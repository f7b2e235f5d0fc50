"""What is SQLite's of the writer thread: one connection, its transactions, and its write-ahead log."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from controller.adapters.sql.connection import WriteJob
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sql.writer import GroupWriter, QueuedJob
from controller.adapters.sqlite import errors, schema
from controller.ports.errors import StoreError
from controller.ports.log import Log

_OVERSIZE_PAUSE: Final = 5.0  # seconds between two attempts to shrink a log that readers hold on to


class WriterThread(GroupWriter):
    """Owns the connection that writes."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        options: StoreOptions,
        now: Callable[[], float],
        log: Log,
    ) -> None:
        super().__init__(str(path), options, now, log)
        self._path = path
        self._connection: sqlite3.Connection | None = connection
        self._unshrunk_since = 0.0
        self._log_path = path.with_name(f"{path.name}-wal")
        self.begin()

    def disconnect(self) -> None:
        """Closes the connection; after `stop`, and after the readers, so that the log is copied into the database."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # the next start reads the log
                self._connection.close()
            self._connection = None

    def _attempt(self, group: Sequence[QueuedJob]) -> list[object]:
        """Commits; returns the result or error of each work.

        Raises:
            sqlite3.Error: nothing was stored; a retry may help.
            StoreError: the file at the path is not the store.
        """
        connection = self._connect()
        connection.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [job.work.run(connection) for job in group]
        except Exception as error:
            if errors.passes_by_waiting(error):
                raise
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_alone(connection, job.work) for job in group]
        connection.execute("COMMIT")
        return outcomes

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = schema.connect(self._path, self._options, read_only=False)
        return self._connection

    def _words_after(self, error: Exception) -> str:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back already
                self._connection.execute("ROLLBACK")
            if errors.needs_new_connection(error):
                self.disconnect()
        return str(error) if isinstance(error, StoreError) else errors.words(error)

    def _refusal(self, cause: BaseException) -> StoreError:
        return errors.as_store_error(cause, "not written before the store was closed")

    def _on_idle(self) -> float | None:
        self._empty_log()
        return None

    def _on_written(self) -> None:
        """Shrinks an oversized log, which waits for readers: overlapping readers keep SQLite from restarting it."""
        try:
            size = self._log_path.stat().st_size
        except OSError:
            return
        now = time.monotonic()
        if size > self._options.max_log_bytes and now >= self._unshrunk_since + _OVERSIZE_PAUSE:
            self._unshrunk_since = now
            self._empty_log()

    def _empty_log(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # the data is in the log; the next attempt suffices
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _alone(connection: sqlite3.Connection, work: WriteJob) -> object:
    """Runs the work of one caller in a savepoint, which is rolled back if it fails."""
    connection.execute("SAVEPOINT work")
    try:
        result = work.run(connection)
    except Exception as error:
        if errors.passes_by_waiting(error):
            raise
        connection.execute("ROLLBACK TO work")
        result = errors.as_store_error(error, "cannot be kept")
        result.__cause__ = error
    connection.execute("RELEASE work")
    return result
