"""Anchors: the ends of all chains at one moment, themselves a chain; removing a chain, or its end, is detected.

One is written when a writer begins or is fenced, and once a day. A writer's chain begins with the digest of the anchor
that registered it: rows cannot be moved to another chain, and no chain can be added.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from controller.domain.audit_chain import (
    GENESIS,
    START,
    ChainBounds,
    ChainFlaw,
    ChainHead,
    ChainLink,
    find_flaws,
    next_digest,
)
from controller.domain.audit_id import FIRST_WRITER, AuditId

_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, sort_keys=True).encode
_MARK: Final = "a"  # before the number of an anchor
HEADS_FORM: Final = r"^(a?[0-9]{1,12}|[0-9]{1,7}-[0-9]{1,12}):[0-9a-f]{64}(,(a|[0-9]{1,7}-)[0-9]{1,12}:[0-9a-f]{64})*$"
Heads = Mapping[int, ChainHead]  # by writer


@dataclass(frozen=True, slots=True)
class AnchorContent:
    """What an anchor says.

    Attributes:
        heads: the ends of the chains that have rows since the anchors before.
        begins: the writer that is registered with it; its chain begins with the anchor's digest.
    """

    heads: Heads = field(default_factory=dict)
    begins: int | None = None

    def text(self) -> str:
        """The content as JSON."""
        found: dict[str, Any] = {"heads": {str(writer): str(head) for writer, head in self.heads.items()}}
        return _encode(found if self.begins is None else {**found, "begins": self.begins})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses the JSON.

        Raises:
            ValueError: it has another form.
        """
        try:
            found = json.loads(text)
            heads = {int(writer): ChainHead.parse(head) for writer, head in found["heads"].items()}
            return cls(heads, found.get("begins"))
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"no anchor: {e!r}") from e


@dataclass(frozen=True, slots=True)
class Anchor:
    """A stored anchor: its number, Unix seconds, content as text, the digest before it, and its own."""

    number: int
    at: float
    body: str
    before: bytes
    digest: bytes

    @classmethod
    def after(cls, last: ChainHead, at: float, content: AnchorContent) -> Self:
        """The anchor that follows `last`."""
        number, body = last.seq + 1, content.text()
        return cls(number, at, body, last.digest, next_digest(last.digest, number, _bytes(at, body)))

    @property
    def link(self) -> ChainLink:
        return ChainLink(self.number, _bytes(self.at, self.body), self.before, self.digest)


def _bytes(at: float, body: str) -> bytes:
    return _encode([float(at), body]).encode()


@dataclass(slots=True)
class AnchorBook:
    """What all anchors say together."""

    last: ChainHead = START
    begun: dict[int, bytes] = field(default_factory=lambda: {FIRST_WRITER: GENESIS})  # the digest before the first row
    heads: dict[int, dict[int, set[bytes]]] = field(default_factory=dict)

    @classmethod
    def of(cls, anchors: Iterable[Anchor]) -> Self:
        """Reads anchors in their order; what is none is left out, verification tells of it."""
        book = cls()
        for anchor in anchors:
            book.last = ChainHead(anchor.number, anchor.digest)
            try:
                book._add(AnchorContent.parse(anchor.body), anchor.digest)
            except ValueError:
                continue
        return book

    def _add(self, content: AnchorContent, digest: bytes) -> None:
        for writer, head in content.heads.items():
            self.heads.setdefault(writer, {}).setdefault(head.seq, set()).add(head.digest)
        if content.begins is not None:
            self.begun[content.begins] = digest

    def has(self, writer: int, head: ChainHead) -> bool:
        """Whether an anchor has this end of the chain, or a later one."""
        return head.seq <= max(self.heads.get(writer, {}), default=0)

    def next_content(self, chains: Heads, begins: int | None) -> AnchorContent:
        """What the next anchor says."""
        return AnchorContent({writer: head for writer, head in chains.items() if not self.has(writer, head)}, begins)


@dataclass(frozen=True, slots=True)
class AuditHeads:
    """The ends of all chains, to be noted where nobody with write access to the store has access.

    Attributes:
        chains: the end of each chain, by writer.
        anchor: the last anchor.
        anchored: the writers whose end the anchors have: the anchor's digest stands for them.
    """

    chains: Heads
    anchor: ChainHead = START
    anchored: frozenset[int] = frozenset()

    def __str__(self) -> str:
        """`aNUMBER:DIGEST`, and `WRITER-SEQ:DIGEST` of what is not in an anchor yet, as `parse` reads it."""
        parts = [f"{_MARK}{self.anchor}"] if self.anchor.seq else []
        parts += [f"{writer}-{head}" for writer, head in sorted(self.chains.items()) if writer not in self.anchored]
        return ",".join(parts) or f"{FIRST_WRITER}-{START}"

    @property
    def text(self) -> str:
        return str(self)

    @classmethod
    def of(cls, chains: Heads, book: AnchorBook) -> Self:
        return cls(chains, book.last, frozenset(writer for writer, head in chains.items() if book.has(writer, head)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses heads as they are shown, or `SEQ:DIGEST` as a version with one chain showed it.

        Raises:
            ValueError: the text has another form.
        """
        chains: dict[int, ChainHead] = {}
        anchor = START
        for part in text.strip().split(","):
            if part.startswith(_MARK):
                anchor = ChainHead.parse(part.removeprefix(_MARK))
                continue
            name, dash, rest = part.partition("-")
            if dash and not name.isdecimal():
                raise ValueError(f"{text!r} is no head, as `cordon audit head` shows it")
            chains[int(name) if dash else FIRST_WRITER] = ChainHead.parse(rest if dash else part)
        return cls(chains, anchor)


@dataclass(frozen=True, slots=True)
class Pruning:
    """How far a chain was pruned: the last row that is gone, and the row that records it."""

    last: ChainHead
    line: AuditId


@dataclass(frozen=True, slots=True)
class AuditVerification:
    """The result of checking all chains and anchors; `flaws` may be cut short."""

    rows: int
    heads: AuditHeads
    flaws: tuple[ChainFlaw, ...]

    @property
    def is_intact(self) -> bool:
        return not self.flaws


@dataclass(slots=True)
class AuditCheck:
    """Checks the anchors, then chain after chain, then whether each pruning was recorded.

    Attributes:
        anchors: all of them.
        counted: the end of the anchors, as it was counted.
        chains: the ends of the chains, as they were counted.
        pruned: how far each chain was pruned.
        noted: heads that were noted elsewhere.
    """

    anchors: list[Anchor]
    counted: ChainHead
    chains: Heads
    pruned: Mapping[int, Pruning]
    noted: AuditHeads | None = None
    book: AnchorBook = field(init=False)
    recorded: dict[AuditId, frozenset[str]] = field(default_factory=dict)  # rows that record a pruning, with its ends

    def __post_init__(self) -> None:
        self.book = AnchorBook.of(self.anchors)

    @property
    def writers(self) -> frozenset[int]:
        """Whose rows are expected."""
        noted = {} if self.noted is None else self.noted.chains
        return frozenset((*self.book.begun, *self.book.heads, *self.chains, *self.pruned, *noted))

    def of_anchors(self) -> Iterator[ChainFlaw]:
        known = [self.counted] if self.noted is None else [self.counted, self.noted.anchor]
        bounds = ChainBounds(heads=_by_number(known), noun="anchor", prefix=_MARK)
        yield from find_flaws((anchor.link for anchor in self.anchors), bounds)

    def of_chain(self, writer: int, links: Iterable[ChainLink]) -> Iterator[ChainFlaw]:
        begun, pruned = self.book.begun.get(writer), self.pruned.get(writer)
        if begun is None:
            first = next((link.seq for link in links), 1)
            name = f"{writer}-{first}"
            yield ChainFlaw("inserted", name, name, f"row {name} is of a chain that no anchor has the beginning of")
            return
        start = ChainHead(0, begun) if pruned is None else pruned.last
        known = [ChainHead(seq, one) for seq, found in self.book.heads.get(writer, {}).items() for one in found]
        known += [heads[writer] for heads in self._counted_or_noted() if writer in heads]
        kept = _by_number(head for head in known if head.seq >= max(start.seq, 1))
        yield from find_flaws(links, ChainBounds(start, kept, prefix=f"{writer}-"))

    def _counted_or_noted(self) -> Iterator[Heads]:
        yield self.chains
        if self.noted is not None:
            yield self.noted.chains

    def of_prunings(self) -> Iterator[ChainFlaw]:
        """After all chains: `recorded` is complete then."""
        for writer, one in self.pruned.items():
            last = str(AuditId(writer, one.last.seq))
            if last not in self.recorded.get(one.line, ()):
                text = f"rows {writer}-1 to {last} are missing, and no row records that they were pruned"
                yield ChainFlaw("removed", f"{writer}-1", last, text)


def _by_number(heads: Iterable[ChainHead]) -> dict[int, frozenset[bytes]]:
    found: dict[int, frozenset[bytes]] = {}
    for head in heads:
        if head.seq:
            found[head.seq] = found.get(head.seq, frozenset()) | {head.digest}
    return found
