"""The audit log's hash chain: rows are numbered and chained in the writer thread, inside the transaction.

So a rollback undoes numbers and chain too, and no state is held in memory.
"""

import sqlite3
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from controller.adapters.files import as_owner
from controller.adapters.sql import audit_chain
from controller.adapters.sql.audit_chain import COLUMNS, AuditRow, anchor, chained, own_digest
from controller.adapters.sqlite.errors import as_store_error
from controller.domain.audit_chain import ChainBounds, ChainHead, ChainVerification
from controller.ports.errors import StoreError

_INSERT: Final = (
    "INSERT INTO audit (at, kind, device_id, actor, case_id, alert, detail, seq, chain)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def append(connection: sqlite3.Connection, lines: list[tuple[AuditRow, bytes]]) -> None:
    """Appends rows with their content as bytes."""
    rows, _ = chained(end(connection), lines)
    connection.executemany(_INSERT, rows)


def end(connection: sqlite3.Connection) -> ChainHead:
    """Returns the highest number ever given, and the digest before the next row."""
    found = connection.execute("SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    counted = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    last = anchor(connection) if found is None else ChainHead(found[0], own_digest(found[1]))
    return ChainHead(max(last.seq, counted[0] if counted else 0), last.digest)


def head(connection: sqlite3.Connection) -> ChainHead:
    """Returns the end of the chain."""
    found = connection.execute("SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return anchor(connection) if found is None else ChainHead(found[0], own_digest(found[1]))


def prune(connection: sqlite3.Connection, before: float, now: float, most: int) -> int:
    """Prunes as `controller.adapters.sql.audit_chain.prune`."""
    return audit_chain.prune(connection, partial(append, connection), before, now, most)


def check(connection: sqlite3.Connection, noted: ChainHead | None = None) -> ChainVerification:
    """Verifies every row in one snapshot.

    Raises:
        sqlite3.Error: the rows cannot be read.
    """
    connection.execute("BEGIN")
    try:
        return check_rows(connection, noted)
    finally:
        connection.execute("ROLLBACK")


def check_rows(connection: sqlite3.Connection, noted: ChainHead | None = None) -> ChainVerification:
    """Verifies as `check` in the present transaction."""
    counted = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    bounds = ChainBounds(anchor(connection), counted[0] if counted else None, noted)
    (count,) = connection.execute("SELECT count(*) FROM audit").fetchone()
    rows = connection.execute(f"SELECT {COLUMNS} FROM audit ORDER BY seq")  # noqa: S608 - constants
    return audit_chain.verification(rows, count, head(connection), bounds)


def check_file(path: Path, noted: ChainHead | None = None) -> ChainVerification:
    """Verifies a file, whether a controller is running or not; changes nothing.

    Raises:
        StoreError: the file does not exist or is not a store.
    """
    if not path.is_file():
        raise StoreError(f"cannot check the audit of {path}: there is no such file")
    try:
        with as_owner(path):
            connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
            try:
                return check(connection, noted)
            finally:
                connection.close()
    except (OSError, sqlite3.Error, ValueError) as error:
        raise as_store_error(error, f"cannot check the audit of {path}") from error
