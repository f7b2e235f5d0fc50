"""What is PostgreSQL's of the writer thread: fenced transactions in pipelines, and the answer that got lost.

A commit whose answer was lost is looked up by its number in the row of this run: it is there, or is written again.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from controller.adapters.postgres import errors, registration, schema
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.audit_chain import WritingConnection
from controller.adapters.postgres.connection import connect
from controller.adapters.postgres.statements import CommitRows, RowsJob, lock, write
from controller.adapters.sql.connection import WriteJob
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sql.writer import GivenUpError, GroupWriter, QueuedJob
from controller.domain.audit_chain import ChainHead
from controller.ports.errors import ConflictError, StoreError
from controller.ports.log import Log
from controller.ports.store import StoreHealth

_RENEW_EVERY: Final = 1.0  # seconds
_LOOP_SILENT: Final = 10.0  # seconds without a sign of life from the event loop, after which the lease is not renewed
_SILENT: Final = 5.0  # seconds for an answer after which the server counts as away
_DEADLOCKS: Final = 5  # in a row that count for nothing
_GUEST: Final = "cordon command"


class FencedError(StoreError):
    """Another controller has taken over; nothing that this one decides is stored any more."""


class PostgresWriter(GroupWriter):
    """Owns the connection that writes. `run`: how this run is registered, `None` for a command beside a controller.

    `lease_end` and `loop_seen_at` (when the event loop lived, 0: nobody says) are monotonic; `clock_offset`: seconds by
    which this machine's clock is behind the server's; `held`: the buckets whose effects this process carries out.
    """

    def __init__(
        self,
        address: PostgresAddress,
        connection: WritingConnection,
        run: registration.Registration | None,
        options: StoreOptions,
        now: Callable[[], float],
        log: Log,
    ) -> None:
        super().__init__(address.shown, options, now, log)
        self._address = address
        self._connection: WritingConnection | None = connection
        self._writer = None if run is None else run.writer
        self.lease_end = 0.0 if run is None else run.lease_end
        self.loop_seen_at = 0.0
        self.clock_offset = 0.0
        self.held: frozenset[int] = frozenset()
        self._commits = 0
        self._uncertain: list[object] | None = None  # results of a commit whose answer was lost
        self._asked_at = 0.0  # monotonic; when the server was asked what it has not answered
        self._lock = threading.Lock()
        self._idle_seconds = _RENEW_EVERY
        self.fenced = asyncio.Event()
        self.refusal = StoreError("")
        self.begin()

    @property
    def health(self) -> StoreHealth:
        """Also when the server just does not answer, and nothing fails yet."""
        asked, found = self._asked_at, self._health
        silent = time.monotonic() - asked if asked else 0.0
        if found.trouble or silent < _SILENT:
            return found
        return StoreHealth("PostgreSQL does not answer", self._now() - silent)

    @health.setter
    def health(self, value: StoreHealth) -> None:
        self._health = value

    async def stop(self) -> None:
        """Writes the queue, or gives up after `close_seconds`, also while the server does not answer."""
        timer = threading.Timer(self._options.close_seconds, self._cut)
        timer.start()
        try:
            await super().stop()
        finally:
            timer.cancel()

    def disconnect(self) -> None:
        """Ends the lease and the connection; after `stop`."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._writer is not None and not connection.is_lost:
            with contextlib.suppress(psycopg.Error):  # the lease ends by itself
                registration.release(connection, self._writer)
        connection.close()

    def _cut(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.cut()

    def _attempt(self, group: Sequence[QueuedJob]) -> list[object]:
        """Commits; returns the result or error of each work.

        Raises:
            psycopg.Error: nothing was stored; a retry may help.
            GivenUpError: fenced.
        """
        for _ in range(_DEADLOCKS):
            try:
                return self._commit_group(group)
            except psycopg.errors.DeadlockDetected as error:  # the other one has gone on
                self._words_after(error)
        return self._commit_group(group)

    def _may_join(self, before: WriteJob, work: WriteJob) -> bool:
        """Rows of callers are written together, in one order of locks; any other job has a transaction of its own.

        After a job that locked what all controllers share nothing else may be waited for.
        """
        return isinstance(before, RowsJob) and isinstance(work, RowsJob)

    def _commit_group(self, group: Sequence[QueuedJob]) -> list[object]:
        self._asked_at = time.monotonic()
        try:
            connection = self._connect()
            if self._uncertain is not None and self._writer is not None:
                has_landed = self._has_landed(connection, self._writer)
                outcomes, self._uncertain = self._uncertain, None
                if has_landed:
                    self._commits += 1
                    return outcomes
            is_alone = group[0].work.alone
            self._begin(connection, alone=is_alone)
            try:
                outcomes = _run(connection, [job.work for job in group])
            except Exception as error:
                if not errors.is_of_data(error):
                    raise
                connection.raw.execute("ROLLBACK")
                self._begin(connection, alone=is_alone)  # also for one conflict: a commit renews the lease
                is_known = isinstance(error, ConflictError) and len(group) == 1
                outcomes = [error] if is_known else _one_by_one(connection, [job.work for job in group])
            self._commit(connection, outcomes)
            return outcomes
        finally:
            self._asked_at = 0.0

    def _begin(self, connection: WritingConnection, *, alone: bool) -> None:
        """Begins a transaction that holds the row of this run: nobody takes over before it ends.

        Raises:
            psycopg.Error: the server failed, or another transaction that had to be alone did not end in time.
            GivenUpError: another controller has taken over.
            StoreError: the clocks differ.
        """
        if self._writer is None:
            registration.begin_alone(connection, guest=True)
            connection.writer, connection.head = registration.lock_as_guest(connection)
            return
        if alone:
            registration.begin_alone(connection, guest=False)
        asked = registration.wall_clock()
        with connection.raw.pipeline():
            if not alone:
                connection.raw.execute("BEGIN")
            locked = connection.execute(registration.LOCK, (self._writer,))
            epoch = connection.execute("SELECT policy_epoch FROM fleet")
        found = locked.fetchone()
        if found is None:
            connection.raw.execute("ROLLBACK")
            raise GivenUpError from _fenced(self._place)
        clock = registration.ServerClock(asked, found[2], registration.wall_clock())
        clock.check()
        self.clock_offset = clock.offset
        connection.writer, connection.head = self._writer, ChainHead(found[0], bytes(found[1]))
        connection.held = self.held
        (connection.policy_epoch,) = epoch.fetchone()

    def _commit(self, connection: WritingConnection, outcomes: list[object]) -> None:
        head, sent_at = connection.head, time.monotonic()
        try:
            # If the first fails, the server skips the second.
            with connection.raw.pipeline():
                if self._writer is None:
                    registration.extend_as_guest(connection, connection.writer, head)
                else:
                    values = (self._commits + 1, head.seq, head.digest, self.clock_offset, self._writer)
                    connection.execute(registration.RENEW, values)
                connection.raw.execute("COMMIT")
        except psycopg.Error:
            if connection.is_lost:
                if self._writer is None:
                    raise GivenUpError from StoreError(
                        "the answer was lost: it may be stored or not; look, then repeat"
                    )
                self._uncertain = outcomes
            raise
        self._commits += 1
        self.lease_end = sent_at + registration.LEASE

    def _has_landed(self, connection: WritingConnection, writer: int) -> bool:
        """Whether the commit whose answer was lost is there.

        Raises:
            GivenUpError: another controller has taken over; what it decides from is what is there.
        """
        found = registration.commits_of(connection, writer)
        if found is None:
            raise GivenUpError from _fenced(self._place)
        return found > self._commits

    def _connect(self) -> WritingConnection:
        if self._connection is None or self._connection.is_lost:
            name = _GUEST if self._writer is None else registration.writer_name(self._writer)
            fresh = WritingConnection(connect(self._address, name))
            try:
                schema.check_server(fresh, self._place)
            except BaseException:
                fresh.close()
                raise
            with self._lock:
                self._connection = fresh
        return self._connection

    def _words_after(self, error: Exception) -> str:
        if self._connection is not None:
            if not self._connection.is_lost:
                try:
                    if self._connection.raw.info.transaction_status is not TransactionStatus.IDLE:
                        self._connection.raw.execute("ROLLBACK")
                except psycopg.Error:
                    self._connection.close()
            if self._connection.is_lost:
                self._connection.close()
        return errors.words(error)

    def _on_idle(self) -> float | None:
        """Renews the lease. A failure is met by the next commit, which finds out whether it still may write."""
        if self._writer is None:
            return None
        self._asked_at = time.monotonic()
        try:
            self._renew(self._connect(), self._writer)
        except (psycopg.Error, StoreError) as error:
            self._step_back(error)
        else:
            self._step_forward()
        finally:
            self._asked_at = 0.0
        return _RENEW_EVERY

    def _pause(self, seconds: float) -> bool:
        """Keeps the lease while the writes of somebody fail, for example because another session locks their rows.

        It waits no longer than a lease allows: once the server is back others count on a renewal.
        """
        if self._writer is not None and self._connection is not None and not self._connection.is_lost:
            try:
                self._renew(self._connection, self._writer)
            except (psycopg.Error, StoreError) as error:
                self._words_after(error)
        return super()._pause(min(seconds, _RENEW_EVERY))

    def _renew(self, connection: WritingConnection, writer: int) -> None:
        """Renews the lease, unless the event loop is stuck: others then take over what it does not do.

        Raises:
            psycopg.Error: the server failed.
            StoreError: the clocks differ.
            GivenUpError: fenced.
        """
        asked_at = time.monotonic()
        if self.loop_seen_at and asked_at - self.loop_seen_at > _LOOP_SILENT:
            return
        clock = registration.renew(connection, writer, self.clock_offset)
        if clock is None:
            raise GivenUpError from _fenced(self._place)
        self.clock_offset, self.lease_end = clock.offset, asked_at + registration.LEASE

    def _refusal(self, cause: BaseException) -> StoreError:
        if isinstance(cause, StoreError):
            return cause
        return errors.as_store_error(cause, "not written before the store was closed")

    def _on_given_up(self, refusal: StoreError) -> None:
        if isinstance(refusal, FencedError):
            self.refusal = refusal
            self.fenced.set()


def _fenced(place: str) -> FencedError:
    return FencedError(f"another controller has taken over the store {place}: this one stops")


def _run(connection: WritingConnection, works: Sequence[WriteJob]) -> list[object]:
    """Runs the rows of all callers, or one other job."""
    rows = _rows(works)
    if not rows:
        return [work.run(connection) for work in works]
    write(connection, rows)
    return [None] * len(works)


def _rows(works: Sequence[WriteJob]) -> list[CommitRows]:
    return [work.content for work in works if isinstance(work, RowsJob) and work.content is not None]


def _one_by_one(connection: WritingConnection, works: Sequence[WriteJob]) -> list[object]:
    """Runs the work of each caller; the devices of all are locked before the first locks the row of the fleet."""
    lock(connection, _rows(works))
    return [_alone(connection, work) for work in works]


def _alone(connection: WritingConnection, work: WriteJob) -> object:
    """Runs the work of one caller in a savepoint, which is rolled back if it fails."""
    connection.raw.execute("SAVEPOINT work")
    before = connection.head
    result: object
    try:
        result = work.run(connection)
    except Exception as error:
        if not errors.is_of_data(error):
            raise
        connection.raw.execute("ROLLBACK TO work")
        connection.head = before
        if isinstance(error, ConflictError):
            result = error
        else:
            result = refused = errors.as_store_error(error, "cannot be kept")
            refused.__cause__ = error
    connection.raw.execute("RELEASE work")
    return result
