"""The audit log's hash chains in a file: what is written here is the chain of writer 1, others were copied.

Rows are numbered and chained in the writer thread, inside the transaction: a rollback undoes numbers and chain too.
"""

import sqlite3
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from controller.adapters.files import as_owner
from controller.adapters.sql import audit_chain
from controller.adapters.sql.audit_chain import COLUMNS, Lines, chained, own_digest
from controller.adapters.sqlite.errors import as_store_error
from controller.domain.audit_anchors import AuditHeads, AuditVerification
from controller.domain.audit_chain import START, ChainHead
from controller.domain.audit_id import FIRST_WRITER, KEYS, AuditId
from controller.ports.errors import StoreError

_INSERT: Final = (
    "INSERT INTO audit (at, kind, device_id, actor, case_id, alert, detail, id, chain)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_END: Final = "SELECT seq, digest FROM audit_chains WHERE writer = ?"
_LAST: Final = "SELECT id, chain FROM audit WHERE id < ? ORDER BY id DESC LIMIT 1"
# `seq` was a column before there were several writers.
_IS_OLDER: Final = "SELECT 1 FROM pragma_table_info('audit') WHERE name = 'seq'"
_EXTEND: Final = (
    "INSERT INTO audit_chains (writer, seq, digest) VALUES (?, ?, ?)"
    " ON CONFLICT (writer) DO UPDATE SET seq = excluded.seq, digest = excluded.digest"
)


def append(connection: sqlite3.Connection, lines: Lines) -> AuditId:
    """Appends rows with their content as bytes; returns the name of the last one."""
    rows, head = chained(FIRST_WRITER, _end(connection), lines)
    connection.executemany(_INSERT, rows)
    connection.execute(_EXTEND, (FIRST_WRITER, head.seq, head.digest))
    return AuditId(FIRST_WRITER, head.seq)


def _end(connection: sqlite3.Connection) -> ChainHead:
    found = connection.execute(_END, (FIRST_WRITER,)).fetchone()
    if found is not None:
        return ChainHead(*found)
    last = connection.execute(_LAST, ((FIRST_WRITER + 1) * KEYS,)).fetchone()  # somebody removed the row
    return START if last is None else ChainHead(AuditId.of_key(last[0]).seq, own_digest(last[1]))


def prune(connection: sqlite3.Connection, before: float, now: float, most: int) -> int:
    """Prunes as `controller.adapters.sql.audit_chain.prune`."""
    return audit_chain.prune(connection, partial(append, connection), before, now, most)


def check(connection: sqlite3.Connection, noted: AuditHeads | None = None) -> AuditVerification:
    """Verifies every row in one snapshot.

    Raises:
        sqlite3.Error: the rows cannot be read.
    """
    connection.execute("BEGIN")
    try:
        return check_rows(connection, noted)
    finally:
        connection.execute("ROLLBACK")


def check_rows(connection: sqlite3.Connection, noted: AuditHeads | None = None) -> AuditVerification:
    """Verifies as `check` in the present transaction."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM audit ORDER BY id")  # noqa: S608 - constants
    return audit_chain.verification(connection, rows, noted)


def check_file(path: Path, noted: AuditHeads | None = None) -> AuditVerification:
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
                if connection.execute(_IS_OLDER).fetchone() is not None:
                    raise StoreError(f"{path} was written by an older version of Cordon: verify it with that version")
                return check(connection, noted)
            finally:
                connection.close()
    except (OSError, sqlite3.Error, ValueError) as error:
        raise as_store_error(error, f"cannot check the audit of {path}") from error
