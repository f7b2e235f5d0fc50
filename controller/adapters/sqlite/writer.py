"""The writer thread: takes all queued work, commits once, and reports all results in one call to the loop.

A transaction that fails because of the file or the machine is retried, in order. A failure caused by the data of one
caller fails for that caller only.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.adapters.sql.connection import WriteJob
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite import errors, schema
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.store import StoreHealth
from schemas.backoff import Backoff

_OVERSIZE_PAUSE: Final = 5.0  # seconds between two attempts to shrink a log that readers hold on to


@dataclass(frozen=True, slots=True)
class _Job:
    work: WriteJob
    future: asyncio.Future[Any]


class _GivenUpError(Exception):
    """The store is closing and `close_seconds` are over; the cause says why nothing could be written."""


class WriterThread:
    """Owns the connection that writes; `submit` and `stop` are called on the loop's thread."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        options: StoreOptions,
        now: Callable[[], float],
        log: Log,
    ) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = connection
        self._options = options
        self._now = now
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Job] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._deadline = 0.0
        self._unshrunk_since = 0.0
        self._log_path = path.with_name(f"{path.name}-wal")
        self.health = StoreHealth()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: WriteJob) -> asyncio.Future[Any]:
        """Queues `work`; the future has its result once it is on disk.

        Raises:
            StoreError: closed, or the queue is full.
        """
        if self._closing.is_set():
            raise StoreError("the store is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._changed:
            if self._waiting_bytes + work.size > self._options.max_waiting_bytes and self._queue:
                raise StoreError(f"too much waits to be written ({self._waiting_bytes} bytes): {self.health.trouble}")
            self._queue.append(_Job(work, future))
            self._waiting_bytes += work.size
            self._changed.notify()
        return future

    async def stop(self) -> None:
        """Writes the queue, or gives up after `close_seconds`; every future is resolved."""
        self._deadline = time.monotonic() + self._options.close_seconds
        self._closing.set()
        with self._changed:
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def disconnect(self) -> None:
        """Closes the connection; after `stop`, and after the readers, so that the log is copied into the database."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # the next start reads the log
                self._connection.close()
            self._connection = None

    def _run(self) -> None:
        cause: BaseException | None = None
        while group := self._take():
            try:
                # Once something was given up nothing later may be kept: call order is a promise.
                outcomes = self._write(group) if cause is None else _refused(group, cause)
            except _GivenUpError as gave_up:
                cause = gave_up.__cause__ or gave_up
                outcomes = _refused(group, cause)
            self._call_loop(_tell, group, outcomes)

    def _take(self) -> list[_Job]:
        """Returns the next group; empty when the store closes and the queue is empty."""
        group: list[_Job] = []
        rows = size = 0
        if not self._wait_for_work(self._options.idle_seconds):
            self._empty_log()
            self._wait_for_work(None)
        with self._changed:
            while self._queue:
                work = self._queue[0].work
                rows += work.rows
                size += work.size
                if group and (rows > self._options.max_group_rows or size > self._options.max_group_bytes):
                    break
                group.append(self._queue.popleft())
                self._waiting_bytes -= work.size
        return group

    def _wait_for_work(self, seconds: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._queue) or self._closing.is_set(), seconds)

    def _write(self, group: list[_Job]) -> list[object]:
        backoff = Backoff(self._options.retry_floor_seconds, self._options.retry_ceiling_seconds)
        attempt = 0
        while True:
            try:
                outcomes = self._attempt(group)
            except Exception as error:
                self._step_back(error)
                if not self._pause(backoff.ceiling(attempt)):
                    raise _GivenUpError from error
                attempt += 1
            else:
                self._step_forward()
                return outcomes

    def _attempt(self, group: list[_Job]) -> list[object]:
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

    def _step_back(self, error: Exception) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back already
                self._connection.execute("ROLLBACK")
            if errors.needs_new_connection(error):
                self.disconnect()
        text = str(error) if isinstance(error, StoreError) else errors.words(error)
        if not self.health.trouble:
            self._call_loop(self._log, "store cannot write", {"path": str(self._path), "trouble": text})
            self.health = StoreHealth(text, self._now())
        elif text != self.health.trouble:
            self.health = StoreHealth(text, self.health.since)

    def _step_forward(self) -> None:
        if self.health.trouble:
            seconds = round(self._now() - self.health.since, 3)
            self._call_loop(self._log, "store writes again", {"path": str(self._path), "after_seconds": seconds})
            self.health = StoreHealth()
        self._shrink_log()

    def _pause(self, seconds: float) -> bool:
        """Waits before the next attempt; False when there is none."""
        if not self._closing.wait(seconds):
            return True
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(self._options.retry_floor_seconds, left))
        return True

    def _shrink_log(self) -> None:
        """Waits for readers: overlapping readers keep SQLite from restarting the log."""
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

    def _call_loop(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(call, *arguments)


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


def _refused(group: list[_Job], cause: BaseException) -> list[object]:
    return [errors.as_store_error(cause, "not written before the store was closed") for _ in group]


def _tell(group: list[_Job], outcomes: list[object]) -> None:
    for job, outcome in zip(group, outcomes, strict=True):
        if job.future.done():
            continue  # the caller was cancelled
        if isinstance(outcome, BaseException):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
