"""The audit log as hash chains: each row has the digest of the row before it, so that changes are detected.

Each writer has a chain of its own. A digest is SHA-256 over the digest before, the row's number and its content. Who
can write the store can also compute new chains; that is detected only by heads that were noted elsewhere
(`cordon audit head`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from controller.domain.audit_kinds import AuditKind

DIGEST_BYTES: Final = 32
GENESIS: Final = bytes(DIGEST_BYTES)  # the digest before the first row of the first writer, and before the first anchor
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
    """The end of a chain, or another row of it: its number and digest."""

    seq: int
    digest: bytes

    def __str__(self) -> str:
        """`SEQ:DIGEST` in hex, as `parse` reads it."""
        return f"{self.seq}:{self.digest.hex()}"

    @classmethod
    def parse(cls, text: str) -> "ChainHead":
        """Parses `SEQ:DIGEST`.

        Raises:
            ValueError: the text has another form.
        """
        seq, _, digest = text.partition(":")
        try:
            head = cls(int(seq), bytes.fromhex(digest))
        except ValueError as e:
            raise ValueError(f"{text!r} is not a head: SEQ:DIGEST") from e
        if head.seq < 0 or len(head.digest) != DIGEST_BYTES:
            raise ValueError(f"{text!r} is not a head: a digest has {2 * DIGEST_BYTES} hex digits")
        return head


START: Final = ChainHead(0, GENESIS)


@dataclass(frozen=True, slots=True)
class ChainLink:
    """A stored row: its number, content, the digest before it, and its own digest."""

    seq: int
    body: bytes
    before: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class ChainBounds:
    """What is known about a chain apart from its rows.

    Attributes:
        start: the last row that was pruned, or what is before the first row.
        heads: digests of rows that were written down elsewhere, by number: none of these rows may be missing.
        noun: what messages call a row.
        prefix: what its number has before it there.
    """

    start: ChainHead = START
    heads: Mapping[int, frozenset[bytes]] = field(default_factory=dict)
    noun: str = "row"
    prefix: str = ""

    def name(self, seq: int) -> str:
        return f"{self.noun} {self.prefix}{seq}"


@dataclass(frozen=True, slots=True)
class ChainFlaw:
    """A detected change; `first` to `last` are the rows concerned: `WRITER-SEQ`, or `aNUMBER` for an anchor."""

    what: str  # changed, removed, inserted, replaced
    first: str
    last: str
    text: str


def find_flaws(links: Iterable[ChainLink], bounds: ChainBounds) -> Iterator[ChainFlaw]:
    """Yields the flaws of rows that are given in the order of their numbers.

    The rows after a flaw are checked too. The caller may stop at any flaw.
    """
    last, is_sound = bounds.start, True
    if _differs(bounds, last):
        yield _flaw("replaced", bounds, last.seq, f"{bounds.name(last.seq)}, the last that was pruned, was another one")
    for link in links:
        flaw = _flaw_of(link, last, bounds, sound_before=is_sound)
        if flaw is not None:
            yield flaw
        is_sound = next_digest(link.before, link.seq, link.body) == link.digest
        last = ChainHead(link.seq, link.digest)
        if (flaw is None or flaw.what == "removed") and _differs(bounds, last):
            yield _flaw("replaced", bounds, link.seq, f"{bounds.name(link.seq)} differs from the head that was noted")
    end = max(bounds.heads, default=0)
    if end > last.seq:
        yield _removed(bounds, last.seq + 1, end)


def _differs(bounds: ChainBounds, head: ChainHead) -> bool:
    return any(digest != head.digest for digest in bounds.heads.get(head.seq, ()))


def _flaw(what: str, bounds: ChainBounds, seq: int, text: str) -> ChainFlaw:
    return ChainFlaw(what, f"{bounds.prefix}{seq}", f"{bounds.prefix}{seq}", text)


def _flaw_of(link: ChainLink, last: ChainHead, bounds: ChainBounds, *, sound_before: bool) -> ChainFlaw | None:
    seq, name = link.seq, bounds.name(link.seq)
    if len(link.digest) != DIGEST_BYTES or len(link.before) != DIGEST_BYTES:
        return _flaw("inserted", bounds, seq, f"{name} was not written by Cordon: it has no digest")
    if next_digest(link.before, seq, link.body) != link.digest:
        return _flaw("changed", bounds, seq, f"{name} was changed after it was written")
    gap = seq - last.seq - 1
    if gap < 0:
        return _flaw("inserted", bounds, seq, f"{name} was inserted: its number was given before")
    if link.before == last.digest and gap == 0:
        return None
    if gap > 0:
        return _removed(bounds, last.seq + 1, seq - 1)
    if not sound_before:
        return None  # the row before is reported already
    if last.seq == bounds.start.seq:
        return _flaw("replaced", bounds, seq, f"{name}, the first, does not follow what was before it")
    text = f"{bounds.name(last.seq)} was replaced: {name} was written after another one"
    return _flaw("replaced", bounds, last.seq, text)


def _removed(bounds: ChainBounds, first: int, last: int) -> ChainFlaw:
    one, other = f"{bounds.prefix}{first}", f"{bounds.prefix}{last}"
    which = f"{bounds.noun} {one} was" if first == last else f"{bounds.noun}s {one} to {other} were"
    return ChainFlaw("removed", one, other, f"{which} removed")
