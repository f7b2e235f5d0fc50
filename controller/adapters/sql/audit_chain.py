"""Rows of the audit log's hash chains and their anchors, pruning, and verification.

`audit_chains` has the end of each chain: a table on SQLite, the rows of the runs on PostgreSQL. A row's key has its
writer and its number (`controller.domain.audit_id`).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Any, Final, NamedTuple

from controller.adapters.sql import codec, meta
from controller.adapters.sql.connection import SqlConnection
from controller.domain.audit_anchors import (
    Anchor,
    AnchorBook,
    AnchorContent,
    AuditCheck,
    AuditHeads,
    AuditVerification,
    Pruning,
)
from controller.domain.audit_chain import (
    DIGEST_BYTES,
    GENESIS,
    PRUNED,
    START,
    ChainFlaw,
    ChainHead,
    ChainLink,
    next_digest,
    row_bytes,
)
from controller.domain.audit_id import FIRST_WRITER, KEYS, AuditId
from controller.ports.store import StoreWrites

COLUMNS: Final = "id, at, kind, device_id, actor, case_id, alert, detail, chain"
_ANCHORED: Final = "audit.anchored"  # key in `meta`: the last anchor
MAX_FLAWS: Final = 100  # flaws in one verification
_MAX_CHAINS: Final = 100  # chains that one transaction prunes
_CLOCK_SLACK: Final = 86_400.0  # seconds; a row from further ahead was written by a wrong clock
# Constants only; every value is bound.
_FIRST: Final = (
    f"SELECT audit.id, audit.at FROM audit_chains JOIN audit ON audit.id = (SELECT min(id) FROM audit"  # noqa: S608
    f" WHERE id > audit_chains.writer * {KEYS} AND id < (audit_chains.writer + 1) * {KEYS})"
    " WHERE audit.at < ? OR audit.at > ? ORDER BY audit.at LIMIT ?"
)
_COUNT: Final = (
    f"SELECT coalesce(sum(audit_chains.writer * {KEYS} + seq + 1 - coalesce((SELECT min(id) FROM audit"  # noqa: S608
    f" WHERE id > audit_chains.writer * {KEYS} AND id < (audit_chains.writer + 1) * {KEYS}),"
    f" audit_chains.writer * {KEYS} + seq + 1)), 0) FROM audit_chains"
)
_PUT_PRUNED: Final = (
    "INSERT INTO audit_pruned (writer, seq, digest, line) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (writer) DO UPDATE SET seq = excluded.seq, digest = excluded.digest, line = excluded.line"
)


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


Lines = list[tuple[AuditRow, bytes]]


def audit_rows(writes: StoreWrites) -> Lines:
    """Returns the audit rows of a commit with their content as bytes.

    Raises:
        StoreError: a detail is not JSON.
    """
    rows = [
        AuditRow(at, one.kind.value, one.device_id, one.actor, one.case_id, one.alert, codec.dump_detail(one.detail))
        for at, one in writes.audit
    ]
    return [(row, row.body) for row in rows]


def chained(
    writer: int, head: ChainHead, lines: Iterable[tuple[AuditRow, bytes]]
) -> tuple[list[tuple[Any, ...]], ChainHead]:
    """Returns rows with key and digests (as in the column `chain`) that follow `head`, and the new head."""
    seq, before = head.seq, head.digest
    first = AuditId(writer, 0).key
    rows: list[tuple[Any, ...]] = []
    for line, body in lines:
        seq += 1
        digest = next_digest(before, seq, body)
        rows.append((*line, first + seq, before + digest))
        before = digest
    return rows, ChainHead(seq, before)


def own_digest(chain: bytes | None) -> bytes:
    """Returns a row's own digest."""
    return bytes(chain or GENESIS)[-DIGEST_BYTES:]


def chains(connection: SqlConnection) -> dict[int, ChainHead]:
    """Returns the end of each chain, as it was counted."""
    rows = connection.execute("SELECT writer, seq, digest FROM audit_chains ORDER BY writer").fetchall()
    return {writer: ChainHead(seq, bytes(digest)) for writer, seq, digest in rows}


def heads(connection: SqlConnection) -> AuditHeads:
    """Returns the ends of all chains."""
    return AuditHeads.of(chains(connection), AnchorBook.of(_anchors(connection)))


def count(connection: SqlConnection) -> int:
    """Returns the number of rows, from their numbers, which have no gaps."""
    return int(connection.execute(_COUNT).fetchone()[0])


# Anchors


def _anchors(connection: SqlConnection) -> list[Anchor]:
    rows = connection.execute("SELECT number, at, body, chain FROM audit_anchors ORDER BY number").fetchall()
    return [
        Anchor(number, at, body, bytes(chain or b"")[:DIGEST_BYTES], bytes(chain or b"")[DIGEST_BYTES:])
        for number, at, body, chain in rows
    ]


def _pruned(connection: SqlConnection) -> dict[int, Pruning]:
    rows = connection.execute("SELECT writer, seq, digest, line FROM audit_pruned").fetchall()
    return {writer: Pruning(ChainHead(seq, bytes(digest)), AuditId.of_key(line)) for writer, seq, digest, line in rows}


def _counted(connection: SqlConnection) -> ChainHead:
    found = meta.get(connection, _ANCHORED)
    try:
        return START if found is None else ChainHead.parse(found)
    except ValueError:
        return START


def add_anchor(connection: SqlConnection, now: float, begins: int | None = None) -> ChainHead | None:
    """Adds an anchor in the present transaction, alone; returns it, or `None` if there was nothing to say.

    It has the ends of the chains that changed since the last one. `begins`: the writer that it registers.
    """
    book, counted = AnchorBook.of(_anchors(connection)), _counted(connection)
    content = book.next_content(chains(connection), begins)
    if content == AnchorContent():
        return None
    # After an anchor that somebody removed: the gap stays visible.
    anchor = Anchor.after(max(book.last, counted, key=lambda one: one.seq), now, content)
    connection.execute(
        "INSERT INTO audit_anchors (number, at, body, chain) VALUES (?, ?, ?, ?)",
        (anchor.number, anchor.at, anchor.body, anchor.before + anchor.digest),
    )
    added = ChainHead(anchor.number, anchor.digest)
    meta.put(connection, _ANCHORED, str(added))
    return added


# Pruning

Append = Callable[[Lines], AuditId]  # returns the last row's name


def prune(connection: SqlConnection, append: Append, before: float, now: float, most: int) -> int:
    """Deletes the oldest rows of each chain from before a time, at most `most`, and records that; returns how many.

    In each chain it stops at the first row that is not older. A row from far after `now`, by a wrong clock, counts as
    old.
    """
    first = connection.execute(_FIRST, (before, now + _CLOCK_SLACK, _MAX_CHAINS)).fetchall()
    ends: dict[int, ChainHead] = {}
    gone = 0
    for key, _ in first:
        writer = AuditId.of_key(key).writer
        oldest = connection.execute(
            "SELECT id, at, chain FROM audit WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (key, (writer + 1) * KEYS, most - gone),
        ).fetchall()
        for row, at, chain in oldest:
            if before <= at <= now + _CLOCK_SLACK:
                break
            ends[writer], gone = ChainHead(AuditId.of_key(row).seq, own_digest(chain)), gone + 1
        if gone >= most:
            break
    if not ends:
        return 0
    # What was recorded in a row that goes now is recorded again.
    again = {
        writer: one.last
        for writer, one in _pruned(connection).items()
        if one.line.writer in ends and one.line.seq <= ends[one.line.writer].seq
    }
    _record(connection, append, {**again, **ends}, gone, now)
    for writer, head in ends.items():
        connection.execute("DELETE FROM audit WHERE id > ? AND id <= ?", (writer * KEYS, AuditId(writer, head.seq).key))
    return gone


def _record(connection: SqlConnection, append: Append, ends: dict[int, ChainHead], gone: int, now: float) -> None:
    names = [str(AuditId(writer, head.seq)) for writer, head in sorted(ends.items())]
    detail = json.dumps({"through": names, "rows": gone}, separators=(",", ":"))
    line = AuditRow(now, PRUNED.value, "", "cordon", "", alert=False, detail=detail)
    recorded = append([(line, line.body)])
    for writer, head in ends.items():
        connection.execute(_PUT_PRUNED, (writer, head.seq, head.digest, recorded.key))


# Verification


def verification(
    connection: SqlConnection, rows: Iterable[tuple[Any, ...]], noted: AuditHeads | None
) -> AuditVerification:
    """Verifies rows in the order of `COLUMNS` and of their keys; the caller's transaction sees one moment."""
    ends = chains(connection)
    check = AuditCheck(_anchors(connection), _counted(connection), ends, _pruned(connection), noted)
    (number,) = connection.execute("SELECT count(*) FROM audit").fetchone()
    return AuditVerification(number, AuditHeads.of(ends, check.book), tuple(islice(_flaws(check, rows), MAX_FLAWS)))


def _flaws(check: AuditCheck, rows: Iterable[tuple[Any, ...]]) -> Iterator[ChainFlaw]:
    yield from check.of_anchors()
    waiting = sorted(check.writers, reverse=True)
    for writer, group in groupby(rows, key=lambda row: int(row[0]) // KEYS):
        while waiting and waiting[-1] <= writer:
            expected = waiting.pop()
            if expected != writer:
                yield from check.of_chain(expected, ())
        yield from check.of_chain(writer, _links(group, check))
    for writer in reversed(waiting):
        yield from check.of_chain(writer, ())
    yield from check.of_prunings()


def _links(rows: Iterable[tuple[Any, ...]], check: AuditCheck) -> Iterator[ChainLink]:
    for key, at, kind, device_id, actor, case_id, alert, detail, chain in rows:
        line = AuditId.of_key(key)
        body = AuditRow(at, kind, device_id, actor, case_id, alert=alert, detail=detail).body
        digests = bytes(chain or b"")
        if kind == PRUNED and actor == "cordon":
            check.recorded[line] = _ends(detail)
        yield ChainLink(line.seq, body, digests[:DIGEST_BYTES], digests[DIGEST_BYTES:])


def _ends(detail: str | None) -> frozenset[str]:
    """The last rows of a pruning; a version with one chain recorded a number."""
    try:
        found = json.loads(detail or "")["through"]
    except (ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(map(str, found)) if isinstance(found, list) else frozenset({str(AuditId(FIRST_WRITER, found))})
