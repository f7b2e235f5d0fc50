"""What was done to the record is found, and told of the right row."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.audit_chain import (
    DIGEST_BYTES,
    GENESIS,
    ChainBounds,
    ChainFlaw,
    ChainHead,
    ChainLink,
    find_flaws,
    next_digest,
    row_bytes,
)


def chain(count: int, start: ChainHead = ChainHead(0, GENESIS), words: str = "") -> list[ChainLink]:  # noqa: B008 - frozen
    """Rows behind `start`."""
    links, before = [], start.digest
    for seq in range(start.seq + 1, start.seq + 1 + count):
        body = row_bytes(1.0 * seq, "kind", f"d{seq}", "actor", words, alert=False, detail=None)
        digest = next_digest(before, seq, body)
        links.append(ChainLink(seq, body, before, digest))
        before = digest
    return links


def told(links: list[ChainLink], **bounds: object) -> list[tuple[str, int, int]]:
    """What is found, without the words."""
    counted = bounds.pop("counted", links[-1].seq if links else None)
    found: list[ChainFlaw] = list(find_flaws(links, ChainBounds(counted=counted, **bounds)))  # type: ignore[arg-type]  # in a test
    return [(one.what, one.first, one.last) for one in found]


def rehashed(link: ChainLink, body: bytes) -> ChainLink:
    """The row with other words and a digest that fits them."""
    return replace(link, body=body, digest=next_digest(link.before, link.seq, body))


def test_a_chain_as_it_was_written_has_no_flaw() -> None:
    assert told(chain(5)) == []
    assert told([]) == []


def test_a_changed_row() -> None:
    links = chain(5)
    assert told([*links[:2], replace(links[2], body=links[0].body), *links[3:]]) == [("changed", 3, 3)]


def test_a_row_changed_together_with_its_digest() -> None:
    links = chain(5)
    assert told([*links[:2], rehashed(links[2], links[0].body), *links[3:]]) == [("replaced", 3, 3)]


@pytest.mark.parametrize(("first", "last"), [(1, 1), (2, 2), (3, 4), (5, 5), (4, 5), (1, 5)])
def test_removed_rows(first: int, last: int) -> None:
    links = [one for one in chain(5) if not first <= one.seq <= last]
    assert told(links, counted=5) == [("removed", first, last)]


def test_rows_removed_from_the_end_and_others_written_behind_them() -> None:
    links = chain(3)
    more = chain(2, ChainHead(5, links[-1].digest))  # the numbers 4 and 5 were given before
    assert told([*links, *more]) == [("removed", 4, 5)]


def test_an_inserted_row_has_no_digest() -> None:
    links = chain(4)
    assert told([*links, ChainLink(5, b"x", b"", b"")]) == [("inserted", 5, 5)]
    assert told([ChainLink(-3, b"x", GENESIS, b"y" * DIGEST_BYTES), *links]) != []


def test_a_whole_new_chain_is_found_by_the_head_that_was_noted() -> None:
    old, new = chain(5), chain(5, words="other")
    assert told(new) == []
    assert told(new, noted=ChainHead(3, old[2].digest)) == [("replaced", 3, 3)]
    assert told(old, noted=ChainHead(3, old[2].digest)) == []


def test_an_end_cut_off_together_with_the_count_is_found_by_the_head() -> None:
    links = chain(5)
    noted = ChainHead(5, links[4].digest)
    assert told(links[:3], counted=3) == []
    assert told(links[:3], counted=3, noted=noted) == [("removed", 4, 5)]


def test_pruning_has_to_be_told_by_a_row() -> None:
    links = chain(8)
    anchor = ChainHead(3, links[2].digest)
    said = [*links[3:7], replace(links[7], pruned_through=3)]
    assert told(said, anchor=anchor) == []
    assert told(links[3:], anchor=anchor) == [("removed", 1, 3)]
    assert told(links[3:], anchor=ChainHead(3, b"\1" * DIGEST_BYTES))[0] == ("replaced", 4, 4)


def test_rows_older_than_the_chain_may_have_gaps() -> None:
    links = chain(2)
    links += chain(2, ChainHead(5, links[-1].digest))
    assert told(links, chained_through=7) == []
    assert told(links, chained_through=2) == [("removed", 3, 5)]


@given(st.data())
def test_no_change_of_one_row_goes_unseen(data: st.DataObject) -> None:
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
    noted = ChainHead(6, links[5].digest)  # only a noted head tells of the last row, rewritten with its digest
    found = told([*links[:index], other, *links[index + 1 :]], noted=noted)
    assert found
    assert {first for _, first, _ in found} <= {link.seq, link.seq + 1, link.seq - 1}


def test_heads_are_written_and_read_back() -> None:
    head = ChainHead(7, b"\xab" * DIGEST_BYTES)
    assert ChainHead.parse(f" {head}\n") == head
    for wrong in ("", "7", "x:" + "ab" * 32, "7:ab", "-1:" + "ab" * 32, "7:zz"):
        with pytest.raises(ValueError, match="is not a head"):
            ChainHead.parse(wrong)


def test_bodies_differ_wherever_rows_do() -> None:
    one = row_bytes(1, "a", "b", "c", "", alert=False, detail=None)
    assert one == row_bytes(1.0, "a", "b", "c", "", alert=False, detail=None)
    assert one != row_bytes(1.0, "a", "b", "c", "", alert=False, detail="null")
    assert one != row_bytes(1.0, "ab", "", "c", "", alert=False, detail=None)
