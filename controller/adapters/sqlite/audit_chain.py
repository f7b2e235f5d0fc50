"""The audit log's hash chain: rows are numbered and chained in the writer thread, inside the transaction.

So a rollback undoes numbers and chain too, and no state is held in memory.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from controller.adapters.files import as_owner
from controller.adapters.sqlite.errors import as_store_error
from controller.domain.audit_chain import (
    DIGEST_BYTES,
    GENESIS,
    PRUNED,
    ChainBounds,
    ChainHead,
    ChainLink,
    ChainVerification,
    find_flaws,
    next_digest,
    row_bytes,
)
from controller.ports.errors import StoreError

ANCHOR: Final = "audit.anchor"  # key in `meta`: the last pruned row
MAX_FLAWS: Final = 100  # flaws in one verification
_CLOCK_SLACK: Final = 86_400.0  # seconds; a row from further ahead was written by a wrong clock

_INSERT: Final = (
    "INSERT INTO audit (at, kind, device_id, actor, case_id, alert, detail, seq, chain)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_COLUMNS: Final = "seq, at, kind, device_id, actor, case_id, alert, detail, chain"


class AuditRow(NamedTuple):
    """A row without its number, in the order of the columns."""

    at: float
    kind: str
    device_id: str
    actor: str
    case_id: str
    alert: bool
    detail: str | None

    @property
    def body(self) -> bytes:
        """The content that is hashed."""
        return row_bytes(*self[:5], alert=self.alert, detail=self.detail)


def append(connection: sqlite3.Connection, lines: list[tuple[AuditRow, bytes]]) -> None:
    """Appends rows with their content as bytes."""
    seq, before = _end(connection)
    rows: list[tuple[Any, ...]] = []
    for line, body in lines:
        seq += 1
        digest = next_digest(before, seq, body)
        rows.append((*line, seq, before + digest))
        before = digest
    connection.executemany(_INSERT, rows)


def _end(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """Returns the highest number ever given, and the digest before the next row."""
    found = connection.execute("SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    counted = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
    if found is None:
        anchor = _anchor(connection)
        return max(anchor.seq, counted[0] if counted else 0), anchor.digest
    return max(found[0], counted[0] if counted else 0), bytes(found[1] or GENESIS)[-DIGEST_BYTES:]


def head(connection: sqlite3.Connection) -> ChainHead:
    """Returns the end of the chain."""
    found = connection.execute("SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return _anchor(connection) if found is None else ChainHead(found[0], bytes(found[1] or GENESIS)[-DIGEST_BYTES:])


def prune(connection: sqlite3.Connection, before: float, now: float, most: int) -> int:
    """Deletes the oldest rows from before a time, at most `most`, and records that in a row; returns how many.

    It stops at the first row that is not older. A row from far after `now`, by a wrong clock, counts as old.
    """
    oldest = connection.execute("SELECT seq, at, chain FROM audit ORDER BY seq LIMIT ?", (most,)).fetchall()
    anchor, gone = None, 0
    for seq, at, chain in oldest:
        if before <= at <= now + _CLOCK_SLACK:
            break
        anchor, gone = ChainHead(seq, bytes(chain or GENESIS)[-DIGEST_BYTES:]), gone + 1
    if anchor is None:
        return 0
    detail = json.dumps({"through": anchor.seq, "digest": anchor.digest.hex(), "rows": gone}, separators=(",", ":"))
    line = AuditRow(now, PRUNED.value, "", "cordon", "", alert=False, detail=detail)
    append(connection, [(line, line.body)])
    connection.execute("DELETE FROM audit WHERE seq <= ?", (anchor.seq,))
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (ANCHOR, str(anchor)))
    return gone


def _anchor(connection: sqlite3.Connection) -> ChainHead:
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (ANCHOR,)).fetchone()
    return ChainHead(0, GENESIS) if found is None else ChainHead.parse(found[0])


def check(connection: sqlite3.Connection, noted: ChainHead | None = None) -> ChainVerification:
    """Verifies every row in one snapshot.

    Raises:
        sqlite3.Error: the rows cannot be read.
    """
    connection.execute("BEGIN")
    try:
        counted = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone()
        bounds = ChainBounds(_anchor(connection), counted[0] if counted else None, noted)
        (rows,) = connection.execute("SELECT count(*) FROM audit").fetchone()
        found = []
        for flaw in find_flaws(_links(connection), bounds):
            found.append(flaw)
            if len(found) >= MAX_FLAWS:
                break
        return ChainVerification(rows, head(connection), tuple(found))
    finally:
        connection.execute("ROLLBACK")


def _links(connection: sqlite3.Connection) -> Iterator[ChainLink]:
    for seq, at, kind, device_id, actor, case_id, alert, detail, chain in connection.execute(
        f"SELECT {_COLUMNS} FROM audit ORDER BY seq"  # noqa: S608 - constants
    ):
        body = AuditRow(at, kind, device_id, actor, case_id, alert=alert, detail=detail).body
        digests = bytes(chain or b"")
        through = _through(detail) if kind == PRUNED and actor == "cordon" else None
        yield ChainLink(seq, body, digests[:DIGEST_BYTES], digests[DIGEST_BYTES:], through)


def _through(detail: str | None) -> int | None:
    try:
        found = json.loads(detail or "")["through"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


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
