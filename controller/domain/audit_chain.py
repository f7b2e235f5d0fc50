"""The audit log as a hash chain: each row has the digest of the row before it, so that changes are detected.

A digest is SHA-256 over the digest before, the row's number and its content. Who can write the file can also compute a
new chain; that is detected only by a digest that was noted elsewhere (`cordon audit head`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind

DIGEST_BYTES: Final = 32
GENESIS: Final = bytes(DIGEST_BYTES)  # the digest before the first row
PRUNED: Final = AuditKind.AUDIT_PRUNED  # the kind of the row that records how far the log was pruned
_SEQ_BYTES: Final = 8
_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def row_bytes(
    at: float, kind: str, device_id: str, actor: str, case_id: str, *, alert: bool, detail: str | None
) -> bytes:
    """Returns the content of a row as unambiguous bytes; `detail` is the JSON text as it is stored."""
    return _encode([float(at), kind, device_id, actor, case_id, int(alert), detail]).encode()


def next_digest(before: bytes, seq: int, body: bytes) -> bytes:
    """Returns the digest of row `seq`, which follows a row with the digest `before`."""
    return hashlib.sha256(before + seq.to_bytes(_SEQ_BYTES, "big", signed=True) + body).digest()


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The end of the chain, to be saved where nobody with write access to the store has access."""

    seq: int
    digest: bytes

    def __str__(self) -> str:
        """`SEQ:DIGEST` in hex, as `parse` reads it."""
        return f"{self.seq}:{self.digest.hex()}"

    @property
    def text(self) -> str:
        return str(self)

    @classmethod
    def parse(cls, text: str) -> "ChainHead":
        """Parses `SEQ:DIGEST`.

        Raises:
            ValueError: the text has another form.
        """
        seq, _, digest = text.strip().partition(":")
        try:
            head = cls(int(seq), bytes.fromhex(digest))
        except ValueError as e:
            raise ValueError(f"{text!r} is not a head: SEQ:DIGEST, as `cordon audit head` shows it") from e
        if head.seq < 0 or len(head.digest) != DIGEST_BYTES:
            raise ValueError(f"{text!r} is not a head: a digest has {2 * DIGEST_BYTES} hex digits")
        return head


@dataclass(frozen=True, slots=True)
class ChainLink:
    """A stored row: its number, content, the digest before it, and its own digest."""

    seq: int
    body: bytes
    before: bytes
    digest: bytes
    pruned_through: int | None = None  # the last pruned row; only in a row of the kind `PRUNED`


@dataclass(frozen=True, slots=True)
class ChainBounds:
    """What is known about the chain apart from its rows.

    Attributes:
        anchor: the last row that was pruned.
        counted: the highest number ever given, as the database counts it.
        noted: a head that was noted elsewhere.
    """

    anchor: ChainHead = ChainHead(0, GENESIS)
    counted: int | None = None
    noted: ChainHead | None = None


@dataclass(frozen=True, slots=True)
class ChainFlaw:
    """A detected change; `first` to `last` are the rows concerned."""

    what: str  # changed, removed, inserted, replaced
    first: int
    last: int
    text: str


@dataclass(frozen=True, slots=True)
class ChainVerification:
    """The result of checking the whole chain; `flaws` may be cut short."""

    rows: int
    head: ChainHead
    flaws: tuple[ChainFlaw, ...]

    @property
    def is_intact(self) -> bool:
        return not self.flaws


def find_flaws(links: Iterable[ChainLink], bounds: ChainBounds) -> Iterator[ChainFlaw]:
    """Yields the flaws of rows that are given in the order of their numbers.

    The rows after a flaw are checked too. The caller may stop at any flaw.
    """
    last, is_sound = bounds.anchor, True
    pruned_through: int | None = None
    noted_seen = bounds.noted is None or bounds.noted.seq <= bounds.anchor.seq
    for link in links:
        flaw = _flaw(link, last, bounds, sound_before=is_sound)
        if flaw is not None:
            yield flaw
        is_sound = next_digest(link.before, link.seq, link.body) == link.digest
        if bounds.noted is not None and link.seq == bounds.noted.seq:
            noted_seen = True
            if link.digest != bounds.noted.digest:
                yield ChainFlaw("replaced", link.seq, link.seq, f"row {link.seq} differs from the head that was noted")
        if link.pruned_through is not None:
            pruned_through = link.pruned_through
        last = ChainHead(link.seq, link.digest)
    yield from _check_bounds(last, pruned_through, bounds, noted_seen=noted_seen)


def _flaw(link: ChainLink, last: ChainHead, bounds: ChainBounds, *, sound_before: bool) -> ChainFlaw | None:
    seq = link.seq
    if len(link.digest) != DIGEST_BYTES or len(link.before) != DIGEST_BYTES:
        return ChainFlaw("inserted", seq, seq, f"row {seq} was not written by Cordon: it has no digest")
    if next_digest(link.before, seq, link.body) != link.digest:
        return ChainFlaw("changed", seq, seq, f"row {seq} was changed after it was written")
    gap = seq - last.seq - 1
    if gap < 0:
        return ChainFlaw("inserted", seq, seq, f"row {seq} was inserted: its number was given before")
    if link.before == last.digest and gap == 0:
        return None
    if gap > 0:
        return _removed(last.seq + 1, seq - 1)
    if not sound_before:
        return None  # the row before is reported already
    if last.seq == bounds.anchor.seq:
        return ChainFlaw("replaced", seq, seq, f"row {seq}, the first, does not follow what was pruned before it")
    return ChainFlaw(
        "replaced", last.seq, last.seq, f"row {last.seq} was replaced: row {seq} was written after another one"
    )


def _removed(first: int, last: int) -> ChainFlaw:
    which = f"row {first} was" if first == last else f"rows {first} to {last} were"
    return ChainFlaw("removed", first, last, f"{which} removed")


def _check_bounds(
    last: ChainHead, pruned_through: int | None, bounds: ChainBounds, *, noted_seen: bool
) -> Iterator[ChainFlaw]:
    end = max(bounds.counted or 0, 0 if bounds.noted is None or noted_seen else bounds.noted.seq)
    if end > last.seq:
        yield _removed(last.seq + 1, end)
    elif not noted_seen and bounds.noted is not None:
        yield _removed(bounds.noted.seq, bounds.noted.seq)
    if bounds.anchor.seq and pruned_through != bounds.anchor.seq:
        text = f"rows 1 to {bounds.anchor.seq} are missing, and no row records that they were pruned"
        yield ChainFlaw("removed", 1, bounds.anchor.seq, text)
