"""Who writes: each run of a controller has a row in `writers`, which every commit locks and changes.

The row is the fence (whoever takes over marks it), the lease (renewed by each commit, in the server's time), the end of
its audit chain, and the answer to whether a commit whose answer was lost is there. For now one run writes at a time.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg

from controller.adapters.postgres import schema
from controller.adapters.postgres.audit_chain import begin_chain
from controller.adapters.postgres.connection import PostgresConnection
from controller.adapters.postgres.migrations import STEPS, Step
from controller.domain.audit_chain import ChainHead
from controller.domain.audit_id import FIRST_WRITER, KEYS
from controller.ports.errors import StoreError

LEASE: Final = 3.0  # seconds
GRACE: Final = 0.5  # seconds after a lease, for a renewal under way
_WAIT: Final = LEASE + GRACE + 1.0  # seconds in which the lease of a controller that was killed ends
_PAUSE: Final = 0.2  # seconds
_LOCK_TIMEOUT: Final = "2s"
_LOCKED: Final = "55P03"
_MOST_NAME: Final = 40  # characters of a controller's name that the server lists

_LAPSED: Final = (
    f"UPDATE writers SET fenced = true WHERE NOT fenced AND lease_until < clock_timestamp() - interval '{GRACE} s'"  # noqa: S608 - constants
)
_OTHERS: Final = "SELECT writer, name, started_at FROM writers WHERE NOT fenced ORDER BY writer DESC LIMIT 1"
_NEW: Final = (
    "INSERT INTO writers VALUES (?, ?, ?, clock_timestamp(), clock_timestamp() + interval '3 s', false,"
    " pg_backend_pid(), 0, 0, ?)"
)
_TERMINATE: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN writers"
    " ON application_name = 'cordon writer ' || writer"
    " WHERE NOT fenced AND lease_until < clock_timestamp() - interval '0.5 s'"
)
LOCK: Final = "SELECT chain_seq, chain_digest FROM writers WHERE writer = ? AND NOT fenced FOR UPDATE"
RENEW: Final = (
    f"UPDATE writers SET lease_until = clock_timestamp() + interval '{LEASE} s', commits = ?, chain_seq = ?,"  # noqa: S608 - constants
    " chain_digest = ? WHERE writer = ?"
)
_GUEST: Final = f"SELECT writer, chain_seq, chain_digest FROM writers WHERE writer = {FIRST_WRITER} FOR UPDATE"  # noqa: S608 - constants
# A chain that is wholly pruned needs its row no longer: the anchors have its end.
_FORGET: Final = (
    f"DELETE FROM writers WHERE fenced AND writer > {FIRST_WRITER} AND writer < ? AND NOT EXISTS"  # noqa: S608 - constants
    f" (SELECT 1 FROM audit WHERE id > writers.writer * {KEYS} AND id < (writers.writer + 1) * {KEYS})"
)
_EXTEND: Final = "UPDATE writers SET chain_seq = ?, chain_digest = ? WHERE writer = ?"


def writer_name(writer: int) -> str:
    """Returns what the server lists the writing connection as."""
    return f"cordon writer {writer}"


@dataclass(frozen=True, slots=True)
class RunningController:
    """A row of `writers` that is not fenced; `is_live`: its lease has not ended."""

    writer: int
    name: str
    since: datetime
    is_live: bool


def register(connection: PostgresConnection, place: str, name: str, steps: Sequence[Step] = STEPS) -> int:
    """Registers this run as the one that writes, and fences one whose lease is over; returns its number.

    Raises:
        StoreError: another controller writes.
        psycopg.Error: the server failed.
    """
    end = time.monotonic() + _WAIT
    while True:
        found = _try(connection, name[:_MOST_NAME], steps)
        if isinstance(found, int):
            return found
        if time.monotonic() >= end:
            raise StoreError(f"the store {place} is in use by the controller {found}: stop that one first")
        time.sleep(_PAUSE)


def _try(connection: PostgresConnection, name: str, steps: Sequence[Step]) -> int | str:
    """Returns the number of this run, or who writes."""
    try:
        with alone(connection):
            connection.execute(_LAPSED)
            other = connection.execute(_OTHERS).fetchone()
            if other is not None:
                return f"{other[1]}, since {other[2]:%Y-%m-%d %H:%M:%S} UTC"
            (writer,) = connection.execute("SELECT max(writer) + 1 FROM writers").fetchone()
            begin = begin_chain(connection, writer, time.time())
            connection.execute(_NEW, (writer, name, len(steps), begin))
            schema.raise_write_level(connection, steps)
            connection.execute(_FORGET, (writer - 1000,))
            return int(writer)
    except psycopg.Error as error:
        if error.sqlstate != _LOCKED:
            raise
        # A controller that stopped within a transaction holds the lock on its row.
        with contextlib.suppress(psycopg.Error):  # the role may not: then the server ends the transaction in time
            connection.execute(_TERMINATE)
        return "that holds a lock, or a copy of the store is being made"


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


def release(connection: PostgresConnection, writer: int) -> None:
    """Ends the lease, so that the next controller need not wait for it."""
    connection.execute("UPDATE writers SET fenced = true WHERE writer = ?", (writer,))


def renew(connection: PostgresConnection, writer: int) -> bool:
    """Renews the lease without waiting for the disk; returns whether this run is still the one that writes."""
    connection.raw.execute("BEGIN; SET LOCAL synchronous_commit = off")
    changed = connection.execute(
        f"UPDATE writers SET lease_until = clock_timestamp() + interval '{LEASE} s'"  # noqa: S608 - constants
        " WHERE writer = ? AND NOT fenced",
        (writer,),
    ).rowcount
    connection.raw.execute("COMMIT")
    return changed == 1


def commits_of(connection: PostgresConnection, writer: int) -> int | None:
    """Returns the number of the last commit that is there; `None` if this run is fenced."""
    found = connection.execute("SELECT commits FROM writers WHERE writer = ? AND NOT fenced", (writer,)).fetchone()
    return None if found is None else int(found[0])


def lock_as_guest(connection: PostgresConnection) -> tuple[int, ChainHead]:
    """Locks the end of the chain of commands, for the present transaction."""
    connection.execute("SELECT pg_advisory_xact_lock_shared(?)", (schema.LOCK,))
    writer, seq, digest = connection.execute(_GUEST).fetchone()
    return int(writer), ChainHead(seq, bytes(digest))


def extend_as_guest(connection: PostgresConnection, writer: int, head: ChainHead) -> None:
    connection.execute(_EXTEND, (head.seq, head.digest, writer))


def running(connection: PostgresConnection) -> RunningController | None:
    """Returns the controller that writes, or wrote until it was killed."""
    found = connection.execute(
        "SELECT writer, name, started_at, lease_until > clock_timestamp() FROM writers WHERE NOT fenced"
        " ORDER BY writer DESC LIMIT 1"
    ).fetchone()
    return None if found is None else RunningController(*found)


def check_at_rest(connection: PostgresConnection, place: str) -> None:
    """Refuses a store that a controller works with.

    Raises:
        StoreError: a controller writes.
    """
    found = running(connection)
    if found is not None and found.is_live:
        raise StoreError(f"the store {place} is in use by the controller {found.name}: stop that one first")
