"""Rows of the audit log's hash chain, and its verification; how an engine finds the ends of the chain is its own."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from controller.adapters.sql import codec
from controller.adapters.sql.connection import SqlConnection
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
from controller.ports.store import StoreWrites

ANCHOR: Final = "audit.anchor"  # key in `meta`: the last pruned row
COLUMNS: Final = "seq, at, kind, device_id, actor, case_id, alert, detail, chain"
MAX_FLAWS: Final = 100  # flaws in one verification
_CLOCK_SLACK: Final = 86_400.0  # seconds; a row from further ahead was written by a wrong clock


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


def audit_rows(writes: StoreWrites) -> list[tuple[AuditRow, bytes]]:
    """Returns the audit rows of a commit with their content as bytes.

    Raises:
        StoreError: a detail is not JSON.
    """
    rows = [
        AuditRow(at, one.kind.value, one.device_id, one.actor, one.case_id, one.alert, codec.dump_detail(one.detail))
        for at, one in writes.audit
    ]
    return [(row, row.body) for row in rows]


def chained(head: ChainHead, lines: Iterable[tuple[AuditRow, bytes]]) -> tuple[list[tuple[Any, ...]], ChainHead]:
    """Returns rows with number and digests (as in the column `chain`) that follow `head`, and the new head."""
    seq, before = head.seq, head.digest
    rows: list[tuple[Any, ...]] = []
    for line, body in lines:
        seq += 1
        digest = next_digest(before, seq, body)
        rows.append((*line, seq, before + digest))
        before = digest
    return rows, ChainHead(seq, before)


def own_digest(chain: bytes | None) -> bytes:
    """Returns a row's own digest."""
    return bytes(chain or GENESIS)[-DIGEST_BYTES:]


def anchor(connection: SqlConnection) -> ChainHead:
    """Returns the last pruned row."""
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (ANCHOR,)).fetchone()
    return ChainHead(0, GENESIS) if found is None else ChainHead.parse(found[0])


Append = Callable[[list[tuple[AuditRow, bytes]]], None]


def prune(connection: SqlConnection, append: Append, before: float, now: float, most: int) -> int:
    """Deletes the oldest rows from before a time, at most `most`, and records that in a row; returns how many.

    It stops at the first row that is not older. A row from far after `now`, by a wrong clock, counts as old.
    """
    oldest = connection.execute("SELECT seq, at, chain FROM audit ORDER BY seq LIMIT ?", (most,)).fetchall()
    last, gone = None, 0
    for seq, at, chain in oldest:
        if before <= at <= now + _CLOCK_SLACK:
            break
        last, gone = ChainHead(seq, own_digest(chain)), gone + 1
    if last is None:
        return 0
    detail = json.dumps({"through": last.seq, "digest": last.digest.hex(), "rows": gone}, separators=(",", ":"))
    line = AuditRow(now, PRUNED.value, "", "cordon", "", alert=False, detail=detail)
    append([(line, line.body)])
    connection.execute("DELETE FROM audit WHERE seq <= ?", (last.seq,))
    put = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    connection.execute(put, (ANCHOR, str(last)))
    return gone


def verification(
    rows: Iterable[tuple[Any, ...]], count: int, head: ChainHead, bounds: ChainBounds
) -> ChainVerification:
    """Verifies rows in the order of `COLUMNS` and of their numbers."""
    found = []
    for flaw in find_flaws(_links(rows), bounds):
        found.append(flaw)
        if len(found) >= MAX_FLAWS:
            break
    return ChainVerification(count, head, tuple(found))


def _links(rows: Iterable[tuple[Any, ...]]) -> Iterator[ChainLink]:
    for seq, at, kind, device_id, actor, case_id, alert, detail, chain in rows:
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
