"""The audit log's hash chains: a run's chain ends in the row of that run, which each of its transactions locks."""

from typing import Final

import psycopg

from controller.adapters.postgres import errors
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.arrays import arrays, register, unnest
from controller.adapters.postgres.connection import PostgresConnection, connect
from controller.adapters.sql import audit_chain
from controller.adapters.sql.audit_chain import COLUMNS, Lines, chained
from controller.domain.audit_anchors import AuditHeads, AuditVerification
from controller.domain.audit_chain import START, ChainHead
from controller.domain.audit_id import AuditId

_LINE: Final = ("at", "kind", "device_id", "actor", "case_id", "alert", "detail", "id", "chain")
INSERT: Final = f"INSERT INTO audit ({', '.join(_LINE)}) SELECT {', '.join(_LINE)} FROM {unnest(_LINE)}"  # noqa: S608 - constants
# Who adds an anchor does so alone; the row is what others of the same transactions lock last, too.
_LOCK: Final = "SELECT 1 FROM fleet FOR UPDATE"


class WritingConnection(PostgresConnection):
    """The connection of a writer; `head` is the end of its chain in the present transaction, `writer` its run.

    `held`: the buckets whose effects this process carries out; others are told of theirs.
    `policy_epoch`: of the policies in force when the transaction began.
    """

    def __init__(self, inner: PostgresConnection) -> None:
        super().__init__(inner.raw)
        self.head = START
        self.writer = 0
        self.held: frozenset[int] = frozenset()
        self.policy_epoch = 0
        register(self.raw)
        # An update of many rows visits them in the order in which it names them, by their index: two writers that
        # lock the same rows in two orders would each wait for the other.
        self.raw.execute("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off")

    def append(self, lines: Lines) -> AuditId:
        """Appends rows with their content as bytes; returns the name of the last one."""
        rows, self.head = chained(self.writer, self.head, lines)
        self.execute(INSERT, arrays(_LINE, rows))
        return AuditId(self.writer, self.head.seq)


def add_anchor(connection: PostgresConnection, now: float, begins: int | None = None) -> ChainHead | None:
    """Adds an anchor as `controller.adapters.sql.audit_chain.add_anchor`; others wait until the transaction ends."""
    connection.execute(_LOCK)
    return audit_chain.add_anchor(connection, now, begins)


def begin_chain(connection: PostgresConnection, writer: int, now: float) -> bytes:
    """Registers a writer with an anchor; returns the digest that its chain begins with."""
    added = add_anchor(connection, now, writer)
    assert added is not None
    return added.digest


def prune(connection: WritingConnection, before: float, now: float, most: int) -> int:
    """Prunes as `controller.adapters.sql.audit_chain.prune`."""
    return audit_chain.prune(connection, connection.append, before, now, most)


def check(connection: PostgresConnection, noted: AuditHeads | None = None) -> AuditVerification:
    """Verifies every row in one snapshot.

    Raises:
        psycopg.Error: the rows cannot be read.
    """
    with connection.snapshot():
        return check_rows(connection, noted)


def check_rows(connection: PostgresConnection, noted: AuditHeads | None = None) -> AuditVerification:
    """Verifies as `check` in the present transaction."""
    rows = connection.stream(f"SELECT {COLUMNS} FROM audit ORDER BY id")  # noqa: S608 - constants
    return audit_chain.verification(connection, rows, noted)


def check_database(address: PostgresAddress, noted: AuditHeads | None = None) -> AuditVerification:
    """Verifies a database, whether controllers are running or not; changes nothing.

    Raises:
        StoreError: no server, or no store in the database.
    """
    try:
        connection = connect(address, "cordon audit verify", read_only=True)
        try:
            return check(connection, noted)
        finally:
            connection.close()
    except (psycopg.Error, ValueError) as error:
        raise errors.as_store_error(error, f"cannot check the audit of {address.shown}") from error
