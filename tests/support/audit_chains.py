"""Chains of further writers in a store of either engine, as other runs of a controller leave them."""

from collections.abc import Sequence
from functools import partial

from controller.adapters.postgres.connection import PostgresConnection
from controller.adapters.sql.audit_chain import add_anchor, audit_rows, chained
from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.domain.audit_chain import ChainHead
from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.store import StoreWrites

_ROW = (
    "INSERT INTO audit (at, kind, device_id, actor, case_id, alert, detail, id, chain)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# Every other column of a run's row is as in that of the first.
_RUN = (
    "CREATE TEMPORARY TABLE run ON COMMIT DROP AS SELECT * FROM writers WHERE writer = 1",
    "INSERT INTO writers SELECT * FROM run",
)


def line(at: float, device: str = "d", kind: AuditKind = AuditKind.DEVICE_ONLINE) -> tuple[float, AuditEntry]:
    return at, AuditEntry(kind, device, "cordon", detail={"at": at})


async def begin(store: SqlStore, writer: int, at: float = 0.0) -> None:
    """Registers a writer."""
    await store.write(partial(_begin, writer=writer, at=at))


async def extend(store: SqlStore, writer: int, lines: Sequence[tuple[float, AuditEntry]]) -> None:
    """Commits lines of a writer."""
    await store.write(partial(_extend, writer=writer, writes=StoreWrites(audit=tuple(lines))))


def _begin(connection: SqlConnection, writer: int, at: float) -> None:
    begun = add_anchor(connection, at, begins=writer)
    assert begun is not None
    if not isinstance(connection, PostgresConnection):
        connection.execute("INSERT INTO audit_chains VALUES (?, 0, ?)", (writer, begun.digest))
        return
    make, insert = _RUN
    connection.execute(make)
    connection.execute("UPDATE run SET writer = ?, chain_seq = 0, chain_digest = ?", (writer, begun.digest))
    connection.execute(insert)


def _extend(connection: SqlConnection, writer: int, writes: StoreWrites) -> None:
    found = connection.execute("SELECT seq, digest FROM audit_chains WHERE writer = ?", (writer,)).fetchone()
    rows, head = chained(writer, ChainHead(found[0], bytes(found[1])), audit_rows(writes))
    connection.executemany(_ROW, rows)
    connection.execute("UPDATE audit_chains SET seq = ?, digest = ? WHERE writer = ?", (head.seq, head.digest, writer))


async def four_chains(store: SqlStore) -> None:
    """Writers 11 to 14 with three lines each; the anchors have the ends of all but the last."""
    for writer in (11, 12, 13, 14):
        await begin(store, writer)
        await extend(store, writer, [line(writer + number / 10, f"d{writer}") for number in range(3)])


def key(writer: int, seq: int) -> int:
    return AuditId(writer, seq).key
