"""The audit log's hash chain: its end is in the row of the run that writes, and is locked by each transaction."""

from typing import Any, Final

from controller.adapters.postgres.connection import PostgresConnection
from controller.adapters.sql import audit_chain
from controller.adapters.sql.audit_chain import COLUMNS, AuditRow, anchor, chained
from controller.domain.audit_chain import ChainBounds, ChainHead, ChainVerification

INSERT: Final = (
    "INSERT INTO audit (seq, writer, at, kind, device_id, actor, case_id, alert, detail, chain)"
    " SELECT seq, ?, at, kind, device_id, actor, case_id, alert, detail, chain FROM unnest(?::float8[], ?::text[],"
    " ?::text[], ?::text[], ?::text[], ?::int2[], ?::text[], ?::int8[], ?::bytea[])"
    " AS new (at, kind, device_id, actor, case_id, alert, detail, seq, chain)"
)
_END: Final = "SELECT chain_seq, chain_digest FROM writers ORDER BY writer DESC LIMIT 1"


class WritingConnection(PostgresConnection):
    """The connection of a writer; `head` is the end of the chain in the present transaction, `writer` its run."""

    def __init__(self, inner: PostgresConnection) -> None:
        super().__init__(inner.raw)
        self.head = ChainHead(0, b"")
        self.writer = 0

    def append(self, lines: list[tuple[AuditRow, bytes]]) -> None:
        """Appends rows with their content as bytes."""
        rows, self.head = chained(self.head, lines)
        at, kind, device_id, actor, case_id, alert, *rest = (list[Any](column) for column in zip(*rows, strict=True))
        columns = (list(map(float, at)), kind, device_id, actor, case_id, list(map(int, alert)), *rest)
        self.execute(INSERT, (self.writer, *columns))


def end(connection: PostgresConnection) -> ChainHead:
    """Returns the highest number ever given, and the digest before the next row."""
    seq, digest = connection.execute(_END).fetchone()
    return ChainHead(seq, bytes(digest))


def head(connection: PostgresConnection) -> ChainHead:
    """Returns the end of the chain."""
    found = connection.execute("SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return anchor(connection) if found is None else ChainHead(found[0], audit_chain.own_digest(found[1]))


def check(connection: PostgresConnection, noted: ChainHead | None = None) -> ChainVerification:
    """Verifies every row in one snapshot; without a `noted` head, against the end that the last writer's row has.

    Raises:
        psycopg.Error: the rows cannot be read.
    """
    with connection.snapshot():
        return check_rows(connection, noted)


def check_rows(connection: PostgresConnection, noted: ChainHead | None = None) -> ChainVerification:
    """Verifies as `check` in the present transaction."""
    last = end(connection)
    (count,) = connection.execute("SELECT count(*) FROM audit").fetchone()
    bounds = ChainBounds(anchor(connection), last.seq, noted or last)
    rows = connection.stream(f"SELECT {COLUMNS} FROM audit ORDER BY seq")  # noqa: S608 - constants
    return audit_chain.verification(rows, count, head(connection), bounds)
