"""Changes of the audit log are detected, with the right row."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.audit_chain import (
    DIGEST_BYTES,
    GENESIS,
    START,
    ChainBounds,
    ChainHead,
    ChainLink,
    find_flaws,
    next_digest,
    row_bytes,
)


def chain(count: int, start: ChainHead = ChainHead(0, GENESIS), text: str = "") -> list[ChainLink]:  # noqa: B008 - frozen
    """Rows behind `start`."""
    links, before = [], start.digest
    for seq in range(start.seq + 1, start.seq + 1 + count):
        body = row_bytes(1.0 * seq, "kind", f"d{seq}", "actor", text, alert=False, detail=None)
        digest = next_digest(before, seq, body)
        links.append(ChainLink(seq, body, before, digest))
        before = digest
    return links


def flaws(links: list[ChainLink], start: ChainHead = START, *heads: ChainHead) -> list[tuple[str, int, int]]:
    """Kind and rows of the flaws that are found."""
    known = {head.seq: frozenset({head.digest}) for head in heads}
    found = find_flaws(links, ChainBounds(start, known, prefix="4-"))
    return [(one.what, int(one.first.removeprefix("4-")), int(one.last.removeprefix("4-"))) for one in found]


def rehashed(link: ChainLink, body: bytes) -> ChainLink:
    """The row with another content and the digest of it."""
    return replace(link, body=body, digest=next_digest(link.before, link.seq, body))


def test_unchanged_chain_has_no_flaw() -> None:
    assert flaws(chain(5)) == []
    assert flaws([]) == []


def test_changed_row_is_found() -> None:
    links = chain(5)
    assert flaws([*links[:2], replace(links[2], body=links[0].body), *links[3:]]) == [("changed", 3, 3)]


def test_row_changed_together_with_its_digest_is_found() -> None:
    links = chain(5)
    assert flaws([*links[:2], rehashed(links[2], links[0].body), *links[3:]]) == [("replaced", 3, 3)]


@pytest.mark.parametrize(("first", "last"), [(1, 1), (2, 2), (3, 4), (5, 5), (4, 5), (1, 5)])
def test_removed_rows_are_found(first: int, last: int) -> None:
    links = [link for link in chain(5) if not first <= link.seq <= last]
    assert flaws(links, START, ChainHead(5, chain(5)[4].digest)) == [("removed", first, last)]


def test_rows_removed_from_the_end_are_found_after_further_rows() -> None:
    links = chain(3)
    more = chain(2, ChainHead(5, links[-1].digest))  # the numbers 4 and 5 were given already
    assert flaws([*links, *more]) == [("removed", 4, 5)]


def test_inserted_row_without_a_digest_is_found() -> None:
    links = chain(4)
    assert flaws([*links, ChainLink(5, b"x", b"", b"")]) == [("inserted", 5, 5)]
    assert flaws([ChainLink(-3, b"x", GENESIS, b"y" * DIGEST_BYTES), *links]) != []


def test_new_chain_is_found_by_a_noted_head() -> None:
    old, new = chain(5), chain(5, text="other")
    assert flaws(new) == []
    assert flaws(new, START, ChainHead(3, old[2].digest)) == [("replaced", 3, 3)]
    assert flaws(old, START, ChainHead(3, old[2].digest)) == []


def test_rows_removed_from_the_end_are_found_by_a_noted_head() -> None:
    links = chain(5)
    assert flaws(links[:3]) == []
    assert flaws(links[:3], START, ChainHead(5, links[4].digest)) == [("removed", 4, 5)]


def test_rows_follow_the_last_that_was_pruned() -> None:
    links = chain(8)
    pruned, other = ChainHead(3, links[2].digest), ChainHead(3, b"\1" * DIGEST_BYTES)
    assert flaws(links[3:], pruned) == []
    assert flaws(links[3:], other) == [("replaced", 4, 4)]
    assert flaws(links[3:], pruned, other) == [("replaced", 3, 3)], "an earlier head of the last row says so"


def test_gap_between_linked_rows_is_a_removal() -> None:
    links = chain(2)
    links += chain(2, ChainHead(5, links[-1].digest))
    assert flaws(links) == [("removed", 3, 5)]


@given(st.data())
def test_any_change_of_one_row_is_found(data: st.DataObject) -> None:
    links = chain(6)
    index = data.draw(st.integers(0, 5))
    link = links[index]
    other = data.draw(
        st.sampled_from([
            replace(link, body=link.body + b" "),
            replace(link, before=b"\2" * DIGEST_BYTES),
            replace(link, digest=b"\3" * DIGEST_BYTES),
            rehashed(link, b"other"),
        ])
    )  # fmt: skip
    noted = ChainHead(6, links[5].digest)  # detects the last row, rewritten with its digest
    detected = flaws([*links[:index], other, *links[index + 1 :]], START, noted)
    assert detected
    assert {first for _, first, _ in detected} <= {link.seq, link.seq + 1, link.seq - 1}


def test_head_is_parsed_from_its_text() -> None:
    head = ChainHead(7, b"\xab" * DIGEST_BYTES)
    assert ChainHead.parse(str(head)) == head
    for invalid in ("", "7", "x:" + "ab" * 32, "7:ab", "-1:" + "ab" * 32, "7:zz"):
        with pytest.raises(ValueError, match="is not a head"):
            ChainHead.parse(invalid)


def test_row_bytes_are_unambiguous() -> None:
    row = row_bytes(1, "a", "b", "c", "", alert=False, detail=None)
    assert row == row_bytes(1.0, "a", "b", "c", "", alert=False, detail=None)
    assert row != row_bytes(1.0, "a", "b", "c", "", alert=False, detail="null")
    assert row != row_bytes(1.0, "ab", "", "c", "", alert=False, detail=None)
