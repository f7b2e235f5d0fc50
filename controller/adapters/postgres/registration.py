"""Who writes: each run of a controller has a row in `writers`, which every commit locks and changes.

The row is the fence (whoever takes over marks it), the lease (renewed by each commit, in the server's time), the end of
its audit chain, and the answer to whether a commit whose answer was lost is there. Buckets and leadership belong to
runs: they have no lease of their own, and become free in the transaction that fences their run. A run has a share of
them once it claims it, which it does when it carries out what it holds: one that still starts, or never gets so far,
keeps nothing from the others.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from controller.adapters.postgres import schema
from controller.adapters.postgres.audit_chain import WritingConnection, add_anchor, begin_chain
from controller.adapters.postgres.connection import LOCK_TIMEOUT, PostgresConnection
from controller.adapters.postgres.migrations import STEPS, Step
from controller.adapters.sql.audit_chain import audit_rows
from controller.domain.audit_chain import ChainHead
from controller.domain.audit_id import FIRST_WRITER, KEYS, AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.errors import StoreError
from controller.ports.leases import BUCKETS, ControllerInfo
from controller.ports.store import StoreWrites

LEASE: Final = 3.0  # seconds
GRACE: Final = 0.5  # seconds after a lease, for a renewal under way
MAX_SKEW: Final = 0.5  # seconds by which the clocks of this machine and of the server may differ
CHANGED: Final = "cordon_leases"  # channel: a controller came or went, or gave something away
_WAIT: Final = LEASE + GRACE + 1.0  # seconds in which the lease of a controller that was killed ends
_PAUSE: Final = 0.2  # seconds
_LOCK_TIMEOUT: Final = "2s"
_ALONE_TIMEOUT: Final = "1s"
_LOCKED: Final = "55P03"
_KEPT: Final = 1000  # runs of which the row is kept
_BY: Final = "cordon"

OVER: Final = f"NOT fenced AND lease_until < clock_timestamp() - interval '{GRACE} s'"
_FROM_NOW: Final = f"clock_timestamp() + interval '{LEASE} s'"
_NEW: Final = (
    "INSERT INTO writers (writer, name, version, level, started_at, lease_until, fenced, backend, commits, chain_seq,"  # noqa: S608 - constants
    f" chain_digest) VALUES (?, ?, ?, ?, clock_timestamp(), {_FROM_NOW}, false, pg_backend_pid(), 0, 0, ?)"
)
# Other databases of the server may be other installations, whose runs have the same numbers.
TERMINATE: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN writers"  # noqa: S608 - constants
    " ON datname = current_database() AND application_name = 'cordon writer ' || writer"
    f" WHERE {OVER} AND writer <> ?"
)
LOCK: Final = (
    "SELECT chain_seq, chain_digest, extract(epoch FROM clock_timestamp())::float8 FROM writers"
    " WHERE writer = ? AND NOT fenced FOR UPDATE"
)
RENEW: Final = (
    f"UPDATE writers SET lease_until = {_FROM_NOW}, commits = ?, chain_seq = ?, chain_digest = ?, clock_offset = ?"  # noqa: S608 - constants
    " WHERE writer = ?"
)
_COMMITS: Final = "UPDATE writers SET commits = commits WHERE writer = ? AND NOT fenced RETURNING commits"
_RENEW_ONLY: Final = (
    f"UPDATE writers SET lease_until = {_FROM_NOW}, clock_offset = ? WHERE writer = ? AND NOT fenced"  # noqa: S608 - constants
    " RETURNING extract(epoch FROM clock_timestamp())::float8"
)
_GUEST: Final = f"SELECT writer, chain_seq, chain_digest FROM writers WHERE writer = {FIRST_WRITER} FOR UPDATE"  # noqa: S608 - constants
# A chain that is wholly pruned needs its row no longer: the anchors have its end.
_FORGET: Final = (
    f"DELETE FROM writers WHERE fenced AND writer > {FIRST_WRITER} AND writer < ? AND NOT EXISTS"  # noqa: S608 - constants
    f" (SELECT 1 FROM audit WHERE id > writers.writer * {KEYS} AND id < (writers.writer + 1) * {KEYS})"
)
_EXTEND: Final = "UPDATE writers SET chain_seq = ?, chain_digest = ? WHERE writer = ?"
_ADOPT: Final = (
    "WITH free AS MATERIALIZED (SELECT bucket FROM buckets WHERE writer = 0 ORDER BY bucket LIMIT ?"
    " FOR UPDATE SKIP LOCKED)"
    " UPDATE buckets SET writer = ?, epoch = epoch + 1 FROM free WHERE buckets.bucket = free.bucket"
)
_SHARING: Final = "SELECT writer FROM writers WHERE NOT fenced AND ready ORDER BY writer"
_LEAD: Final = "UPDATE fleet SET leader = ?, leader_epoch = leader_epoch + 1 WHERE leader = 0"
_INFOS: Final = (
    "SELECT name, writers.writer, extract(epoch FROM started_at)::float8, version, writers.writer = fleet.leader,"
    " (SELECT count(*) FROM buckets WHERE buckets.writer = writers.writer),"
    " extract(epoch FROM lease_until - clock_timestamp())::float8,"
    " (SELECT count(*) FROM outbox JOIN buckets USING (bucket) WHERE buckets.writer = writers.writer), clock_offset"
    " FROM writers, fleet WHERE NOT fenced ORDER BY name"
)


@dataclass(frozen=True, slots=True)
class Held:
    """What a run holds: buckets, and the epoch in which it leads (0: it does not)."""

    buckets: frozenset[int]
    leads: int


@dataclass(frozen=True, slots=True)
class ServerClock:
    """What the clock of the server showed between two moments of this machine's clock, in Unix seconds."""

    asked_at: float
    told: float
    answered_at: float

    @property
    def offset(self) -> float:
        """Seconds by which this machine's clock is behind."""
        return self.told - (self.asked_at + self.answered_at) / 2

    @property
    def skew(self) -> float:
        """The least by which the clocks differ, however long question and answer took each."""
        return max(self.asked_at - self.told, self.told - self.answered_at, 0.0)

    def check(self) -> None:
        """Refuses to decide by a clock that is wrong.

        Raises:
            StoreError: the clocks differ by more than `MAX_SKEW`.
        """
        if self.skew > MAX_SKEW:
            how = "behind" if self.offset > 0 else "ahead of"
            raise StoreError(
                f"the clock of this machine is {abs(self.offset):.1f} s {how} that of PostgreSQL:"
                " nothing is decided until they agree (NTP)"
            )


def wall_clock() -> float:
    """Unix seconds of this machine."""
    return time.time()


def writer_name(writer: int) -> str:
    """Returns what the server lists the writing connection as."""
    return f"cordon writer {writer}"


@dataclass(frozen=True, slots=True)
class Registration:
    """A run that was registered. `lease_end`: by this machine's monotonic clock."""

    writer: int
    lease_end: float


def register(
    connection: WritingConnection,
    place: str,
    name: str,
    version: str = "",
    *,
    now: float = 0.0,
    steps: Sequence[Step] = STEPS,
) -> Registration:
    """Registers this run, and fences former ones of its name whose lease is over.

    `now`: Unix seconds, for the audit line of a run that is fenced.

    Raises:
        StoreError: another controller of this name runs, or the clocks differ.
        psycopg.Error: the server failed.
    """
    asked = wall_clock()
    (told,) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    ServerClock(asked, told, wall_clock()).check()
    end = time.monotonic() + _WAIT
    while True:
        lease_end = time.monotonic() + LEASE
        found = _try(connection, (name, version, len(steps)), now, steps)
        if not found:
            return Registration(connection.writer, lease_end)
        if time.monotonic() >= end:
            raise StoreError(
                f"the store {place} is in use by a controller of the same name, {found}: stop that one first, or give"
                " this one another name ([controller] name)"
            )
        time.sleep(_PAUSE)


def _try(connection: WritingConnection, identity: tuple[str, str, int], now: float, steps: Sequence[Step]) -> str:
    """Returns who keeps this run from registering; empty if it is registered."""
    try:
        with alone(connection):
            over = _mark(connection, "name = ?", identity[0], "FOR UPDATE")
            _check_name(connection, identity[0])
            (writer,) = connection.execute("SELECT max(writer) + 1 FROM writers").fetchone()
            begin = begin_chain(connection, writer, now)
            connection.execute(_NEW, (writer, *identity, begin))
            connection.writer, connection.head = writer, ChainHead(0, begin)
            _note(connection, over, now)
            connection.execute(_EXTEND, (connection.head.seq, connection.head.digest, writer))
            schema.raise_write_level(connection, steps)
            connection.execute(_FORGET, (writer - _KEPT,))
            return ""
    except _TakenError as taken:
        return str(taken)
    except psycopg.Error as error:
        if error.sqlstate != _LOCKED:
            raise
        # A controller that stopped within a transaction holds the lock on its row.
        with contextlib.suppress(psycopg.Error):  # the role may not: then the server ends the transaction in time
            connection.execute(TERMINATE, (0,))
        return "that holds a lock, or a copy of the store is being made"


class _TakenError(Exception):
    """The name belongs to a run that has not ended."""


def _check_name(connection: PostgresConnection, name: str) -> None:
    found = connection.execute("SELECT started_at FROM writers WHERE NOT fenced AND name = ?", (name,)).fetchone()
    if found is not None:
        raise _TakenError(f"{name}, since {found[0]:%Y-%m-%d %H:%M:%S} UTC")


@contextlib.contextmanager
def alone(
    connection: PostgresConnection, *, lock_timeout: str = _LOCK_TIMEOUT, read_only: bool = False
) -> Iterator[None]:
    """A transaction in which nobody else registers, migrates or copies."""
    how = "ISOLATION LEVEL REPEATABLE READ READ ONLY" if read_only else ""
    connection.raw.execute(f"BEGIN {how}; SET LOCAL lock_timeout = '{lock_timeout}'")
    try:
        connection.execute("SELECT pg_advisory_xact_lock(?)", (schema.LOCK,))
        yield
        connection.raw.execute("COMMIT")
    except BaseException:
        if not connection.is_lost:
            connection.raw.execute("ROLLBACK")
        raise


def fence(connection: WritingConnection, seen: Sequence[int], now: float) -> list[str]:
    """Fences runs whose lease is still over, and notes it in this run's audit chain; in the caller's transaction.

    `seen`: those that had the time to renew it, and did not; who only has been kept from it meanwhile is none of them.
    One that is within a transaction keeps its row locked, and is left for the next time.
    """
    if not seen:
        return []
    over = _mark(connection, "writer = ANY(?::int4[])", list(seen), "FOR UPDATE SKIP LOCKED")
    _note(connection, over, now)
    if over:
        add_anchor(connection, now)
    return [name for _, name, _ in over]


def _mark(connection: PostgresConnection, which: str, value: object, locking: str) -> list[tuple[Any, ...]]:
    found = connection.execute(
        f"SELECT writer, name, chain_seq FROM writers WHERE {OVER} AND {which} ORDER BY writer {locking}",  # noqa: S608 - constants
        (value,),
    ).fetchall()
    _free(connection, [writer for writer, *_ in found])
    return found


def _free(connection: PostgresConnection, writers: list[int]) -> None:
    """Marks runs as ended; what they held is free."""
    if writers:
        for statement in (
            "UPDATE writers SET fenced = true WHERE writer = ANY(?::int4[])",
            "UPDATE buckets SET writer = 0 WHERE writer = ANY(?::int4[])",
            "UPDATE fleet SET leader = 0 WHERE leader = ANY(?::int4[])",
        ):
            connection.execute(statement, (writers,))
        tell(connection)


def _note(connection: WritingConnection, over: list[tuple[Any, ...]], now: float) -> None:
    entries = []
    for run, name, seq in over:
        detail = {"name": name, "run": run, "last": str(AuditId(run, seq))}
        entries.append(AuditEntry(AuditKind.CONTROLLER_FENCED, "", _BY, "", detail, alert=True))
    if entries:
        connection.append(audit_rows(StoreWrites(audit=tuple((now, entry) for entry in entries))))


def claim(connection: PostgresConnection, writer: int) -> Held:
    """Takes free buckets up to this run's share, and leads if nobody does; in the caller's transaction.

    From now on this run counts for what others leave to it.
    """
    changes = connection.execute("UPDATE writers SET ready = true WHERE writer = ? AND NOT ready", (writer,)).rowcount
    live = [one for (one,) in connection.execute(_SHARING)]
    mine = _buckets(connection, writer)
    lacking = share(writer, live) - len(mine)
    if lacking > 0:
        changes += connection.execute(_ADOPT, (lacking, writer)).rowcount
        mine = _buckets(connection, writer)
    changes += connection.execute(_LEAD, (writer,)).rowcount
    leader, epoch = connection.execute("SELECT leader, leader_epoch FROM fleet").fetchone()
    if changes:
        tell(connection)
    return Held(mine, epoch if leader == writer else 0)


def share(writer: int, live: Sequence[int]) -> int:
    """Returns the number of buckets of a run among those that live, in the order of their numbers."""
    if writer not in live:
        return 0
    whole, more = divmod(BUCKETS, len(live))
    return whole + (live.index(writer) < more)


def give_away(connection: PostgresConnection, writer: int, buckets: frozenset[int]) -> frozenset[int]:
    """Frees buckets of this run, in the caller's transaction; returns those that are left."""
    connection.execute(
        "UPDATE buckets SET writer = 0 WHERE writer = ? AND bucket = ANY(?::int2[])", (writer, sorted(buckets))
    )
    tell(connection)
    return _buckets(connection, writer)


def _buckets(connection: PostgresConnection, writer: int) -> frozenset[int]:
    return frozenset(one for (one,) in connection.execute("SELECT bucket FROM buckets WHERE writer = ?", (writer,)))


def tell(connection: PostgresConnection) -> None:
    connection.execute("SELECT pg_notify(?, '')", (CHANGED,))


def release(connection: PostgresConnection, writer: int) -> None:
    """Ends this run, so that others need not wait for its lease."""
    connection.raw.execute("BEGIN")
    _free(connection, [writer])
    connection.raw.execute("COMMIT")


def renew(connection: PostgresConnection, writer: int, offset: float) -> ServerClock | None:
    """Renews the lease without waiting for the disk; returns the server's clock, `None` if this run is fenced.

    Raises:
        StoreError: the clocks differ; the caller rolls back.
        psycopg.Error: the server failed.
    """
    asked = wall_clock()
    connection.raw.execute("BEGIN; SET LOCAL synchronous_commit = off")
    found = connection.execute(_RENEW_ONLY, (offset, writer)).fetchone()
    clock = None if found is None else ServerClock(asked, found[0], wall_clock())
    if clock is not None:
        clock.check()
    connection.raw.execute("COMMIT")
    return clock


def commits_of(connection: PostgresConnection, writer: int) -> int | None:
    """Returns the number of the last commit that is there; `None` if this run is fenced.

    Waits for a commit that the server still works at (for a standby), which holds the lock on the row; then for the
    standby. Raises psycopg.Error while that is not known.
    """
    connection.raw.execute("BEGIN")
    found = connection.execute(_COMMITS, (writer,)).fetchone()
    connection.raw.execute("COMMIT")
    return None if found is None else int(found[0])


def begin_alone(connection: PostgresConnection, *, guest: bool) -> None:
    """Begins a transaction beside which no other one is that checks something and then changes it.

    It waits before it holds the row of its run, and briefly: meanwhile nobody renews the lease. Who goes on after it
    sees what it committed. `guest`: of a command; then nobody migrates or registers meanwhile, either.

    Raises:
        psycopg.Error: another one did not end in time; the caller rolls back.
    """
    first = f"SELECT pg_advisory_xact_lock_shared({schema.LOCK});" if guest else ""
    connection.raw.execute(
        f"BEGIN; {first} SET LOCAL lock_timeout = '{_ALONE_TIMEOUT}'; SELECT pg_advisory_xact_lock({schema.ALONE});"
        f" SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"
    )


def lock_as_guest(connection: PostgresConnection) -> tuple[int, ChainHead]:
    """Locks the end of the chain of commands, for the present transaction."""
    writer, seq, digest = connection.execute(_GUEST).fetchone()
    return int(writer), ChainHead(seq, bytes(digest))


def extend_as_guest(connection: PostgresConnection, writer: int, head: ChainHead) -> None:
    connection.execute(_EXTEND, (head.seq, head.digest, writer))


def running(connection: PostgresConnection) -> list[ControllerInfo]:
    """Returns the runs that have not ended, by name, also those that were killed and are not fenced yet."""
    return [ControllerInfo(*row) for row in connection.execute(_INFOS)]


def check_at_rest(connection: PostgresConnection, place: str) -> None:
    """Refuses a store that a controller works with.

    Raises:
        StoreError: a controller writes.
    """
    for found in running(connection):
        if found.lease_left > 0:
            raise StoreError(f"the store {place} is in use by the controller {found.name}: stop that one first")
