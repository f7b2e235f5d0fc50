"""Changes of the audit log are detected, with the right row."""

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


def chain(count: int, start: ChainHead = ChainHead(0, GENESIS), text: str = "") -> list[ChainLink]:  # noqa: B008 - frozen
    """Rows behind `start`."""
    links, before = [], start.digest
    for seq in range(start.seq + 1, start.seq + 1 + count):
        body = row_bytes(1.0 * seq, "kind", f"d{seq}", "actor", text, alert=False, detail=None)
        digest = next_digest(before, seq, body)
        links.append(ChainLink(seq, body, before, digest))
        before = digest
    return links


def flaws(links: list[ChainLink], **bounds: object) -> list[tuple[str, int, int]]:
    """Kind and rows of the flaws that are found."""
    counted = bounds.pop("counted", links[-1].seq if links else None)
    all_flaws: list[ChainFlaw] = list(find_flaws(links, ChainBounds(counted=counted, **bounds)))  # type: ignore[arg-type]  # in a test
    return [(flaw.what, flaw.first, flaw.last) for flaw in all_flaws]


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
    assert flaws(links, counted=5) == [("removed", first, last)]


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
    assert flaws(new, noted=ChainHead(3, old[2].digest)) == [("replaced", 3, 3)]
    assert flaws(old, noted=ChainHead(3, old[2].digest)) == []


def test_rows_removed_together_with_their_count_are_found_by_a_noted_head() -> None:
    links = chain(5)
    noted = ChainHead(5, links[4].digest)
    assert flaws(links[:3], counted=3) == []
    assert flaws(links[:3], counted=3, noted=noted) == [("removed", 4, 5)]


def test_pruning_without_an_audit_row_is_found() -> None:
    links = chain(8)
    anchor = ChainHead(3, links[2].digest)
    recorded = [*links[3:7], replace(links[7], pruned_through=3)]
    assert flaws(recorded, anchor=anchor) == []
    assert flaws(links[3:], anchor=anchor) == [("removed", 1, 3)]
    assert flaws(links[3:], anchor=ChainHead(3, b"\1" * DIGEST_BYTES))[0] == ("replaced", 4, 4)


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
    detected = flaws([*links[:index], other, *links[index + 1 :]], noted=noted)
    assert detected
    assert {first for _, first, _ in detected} <= {link.seq, link.seq + 1, link.seq - 1}


def test_head_is_parsed_from_its_text() -> None:
    head = ChainHead(7, b"\xab" * DIGEST_BYTES)
    assert ChainHead.parse(f" {head}\n") == head
    for invalid in ("", "7", "x:" + "ab" * 32, "7:ab", "-1:" + "ab" * 32, "7:zz"):
        with pytest.raises(ValueError, match="is not a head"):
            ChainHead.parse(invalid)


def test_row_bytes_are_unambiguous() -> None:
    row = row_bytes(1, "a", "b", "c", "", alert=False, detail=None)
    assert row == row_bytes(1.0, "a", "b", "c", "", alert=False, detail=None)
    assert row != row_bytes(1.0, "a", "b", "c", "", alert=False, detail="null")
    assert row != row_bytes(1.0, "ab", "", "c", "", alert=False, detail=None)
