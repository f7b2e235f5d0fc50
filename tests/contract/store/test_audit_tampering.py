"""What somebody does to the chains who can write the store, and what verification says of it; on each engine."""

from collections.abc import Sequence

import pytest

from controller.adapters.sql.audit_chain import add_anchor
from controller.domain.audit_anchors import Anchor, AnchorBook, AnchorContent, AuditHeads
from controller.domain.audit_chain import ChainHead
from controller.domain.audit_id import KEYS
from tests.contract.store.conftest import StorePlace
from tests.support.audit_chains import begin, extend, four_chains, key, line

CHAIN_12 = f"id > {key(12, 0)} AND id < {key(13, 0)}"
CHAIN_13 = f"id > {key(13, 0)} AND id < {key(14, 0)}"
BEGAN_13 = "body LIKE '%\"begins\":13%'"


async def flaws_after(
    place: StorePlace, *statements: str, noted: AuditHeads | None = None
) -> list[tuple[str, str, str]]:
    async with place.opened() as store:
        await four_chains(store)
        before = await store.check_audit()
        assert before.is_intact, before.flaws
    for statement in statements:
        place.change(statement)
    async with place.opened() as store:
        return [(one.what, one.first, one.last) for one in (await store.check_audit(noted)).flaws]


def cut(writer: int, seq: int) -> tuple[str, str]:
    """Removes what is after a line, and counts it no more."""
    last = f"(SELECT substr(chain, 33) FROM audit WHERE id = {key(writer, seq)})"
    return (
        f"DELETE FROM audit WHERE id > {key(writer, seq)} AND id < {key(writer + 1, 0)}",
        f"UPDATE audit_chains SET seq = {seq}, digest = {last} WHERE writer = {writer}",
    )


ATTACKS: dict[str, tuple[Sequence[str], Sequence[object]]] = {
    "line changed": ([f"UPDATE audit SET actor = 'eve' WHERE id = {key(12, 2)}"], [("changed", "12-2", "12-2")]),
    "line removed": ([f"DELETE FROM audit WHERE id = {key(12, 2)}"], [("removed", "12-2", "12-2")]),
    "lines exchanged between chains": (
        [f"UPDATE audit SET id = 5 WHERE id = {key(12, 2)}",
         f"UPDATE audit SET id = {key(12, 2)} WHERE id = {key(13, 2)}",
         f"UPDATE audit SET id = {key(13, 2)} WHERE id = 5"],
        [("replaced", "12-1", "12-1"), ("replaced", "12-2", "12-2"), ("replaced", "13-1", "13-1"),
         ("replaced", "13-2", "13-2")],
    ),
    "chains exchanged": (
        [f"UPDATE audit SET id = id + {100 * KEYS} WHERE {CHAIN_12}",
         f"UPDATE audit SET id = id - {KEYS} WHERE {CHAIN_13}",
         f"UPDATE audit SET id = id - {99 * KEYS} WHERE id > {key(100, 0)}"],
        [("replaced", "12-1", "12-1"), ("replaced", "12-3", "12-3"), ("replaced", "13-1", "13-1"),
         ("replaced", "13-3", "13-3")],
    ),
    "chain removed": (
        [f"DELETE FROM audit WHERE {CHAIN_13}", "DELETE FROM audit_chains WHERE writer = 13"],
        [("removed", "13-1", "13-3")],
    ),
    "end of a chain cut off": ([f"DELETE FROM audit WHERE id = {key(14, 3)}"], [("removed", "14-3", "14-3")]),
    "end of a chain cut off, also its count": (cut(13, 1), [("removed", "13-2", "13-3")]),
    "chain moved to a new writer": (
        [f"UPDATE audit SET id = id + {50 * KEYS} WHERE {CHAIN_13}"],
        [("removed", "13-1", "13-3"), ("inserted", "63-1", "63-1")],
    ),
    "anchor changed": ([f"UPDATE audit_anchors SET at = at + 1 WHERE {BEGAN_13}"], ["changed"]),
    "anchor removed": ([f"DELETE FROM audit_anchors WHERE {BEGAN_13}"], ["removed", ("inserted", "13-1", "13-1")]),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
async def test_what_was_done_is_found(place: StorePlace, name: str) -> None:
    statements, expected = ATTACKS[name]
    found = await flaws_after(place, *statements)
    assert len(found) == len(expected), found
    for one, wanted in zip(found, expected, strict=True):
        assert wanted in (one, one[0])


async def test_every_anchor_removed(place: StorePlace) -> None:
    found = await flaws_after(place, "DELETE FROM audit_anchors", "DELETE FROM meta WHERE key = 'audit.anchored'")
    unknown = {writer for what, writer, _ in found if what == "inserted"}
    assert unknown >= {"11-1", "12-1", "13-1", "14-1"}, "chains whose beginning nothing tells"


async def test_the_last_anchors_removed(place: StorePlace) -> None:
    async with place.opened() as store:
        await four_chains(store)
        await store.write(lambda connection: add_anchor(connection, 1.0))
        noted = await store.audit_heads()
    place.change(f"DELETE FROM audit_anchors WHERE number = {noted.anchor.seq}")
    async with place.opened() as store:
        assert ("removed", f"a{noted.anchor.seq}") in [
            (one.what, one.first) for one in (await store.check_audit()).flaws
        ]
    place.change("DELETE FROM meta WHERE key = 'audit.anchored'")
    async with place.opened() as store:
        (flaw,) = (await store.check_audit(AuditHeads({}, noted.anchor))).flaws
    assert flaw.what in ("removed", "replaced"), "by what was noted elsewhere, and by nothing else"


async def test_what_was_cut_off_since_the_last_anchor_is_found_by_a_noted_head(place: StorePlace) -> None:
    async with place.opened() as store:
        await four_chains(store)
        noted = AuditHeads.parse(str(await store.audit_heads()))
        assert noted.chains[14].seq == 3
        assert not {11, 12, 13} & set(noted.chains), "the anchor stands for them"
    for statement in cut(14, 2):
        place.change(statement)
    async with place.opened() as store:
        assert (await store.check_audit()).is_intact
        assert [one.text for one in (await store.check_audit(noted)).flaws] == ["row 14-3 was removed"]


async def test_a_pruning_that_no_line_records(place: StorePlace) -> None:
    forged = (
        f"INSERT INTO audit_pruned SELECT 12, 3, substr(chain, 33), {key(14, 1)} FROM audit WHERE id = {key(12, 3)}"
    )
    found = await flaws_after(place, forged, f"DELETE FROM audit WHERE {CHAIN_12}")
    assert found == [("removed", "12-1", "12-3")], "no row records that they were pruned"


async def test_chains_are_pruned_each_from_its_beginning_and_stay_verifiable(place: StorePlace) -> None:
    day = 86_400.0
    async with place.opened() as store:
        old, new = store._now() - 500 * day, store._now() - 10 * day
        for writer, lines in ((11, [old] * 5), (12, [old, old, new, old]), (13, [new])):
            await begin(store, writer)
            await extend(store, writer, [line(at) for at in lines])
        noted = await store.audit_heads()
        assert await store.prune() == 7
        left = {str(one.id) for one in await store.audit(device_id="d")}
        assert left == {"12-3", "12-4", "13-1"}
        (said,) = [one for one in await store.audit() if one.entry.kind == "audit.pruned"]
        assert said.entry.detail == {"through": ["11-5", "12-2"], "rows": 7}
        assert (await store.check_audit(noted)).flaws == ()
        assert (await store.counts())["audit"] == 4
        await extend(store, 12, [line(new)])
        assert await store.prune() == 0
        assert (await store.check_audit()).is_intact
        heads = await store.audit_heads()
        assert str(heads) == f"a{heads.anchor.seq}:{heads.anchor.digest.hex()}", "each night's anchor has every end"


async def test_what_a_pruned_line_recorded_is_recorded_again(place: StorePlace) -> None:
    day = 86_400.0
    async with place.opened() as store:
        now = store._now()
        await begin(store, 11)
        await extend(store, 11, [line(now - 500 * day)] * 2)
        assert await store.prune() == 2
        (said,) = [one for one in await store.audit() if one.entry.kind == "audit.pruned"]
        await extend(store, 11, [line(now - 499 * day)])
        store._now = lambda: now + 401 * day
        await store.prune()
        lines = [one.entry.detail for one in await store.audit() if one.entry.kind == "audit.pruned"]
        assert lines == [{"through": [str(said.id), "11-3"], "rows": 2}]
        store._now = lambda: now + 802 * day
        assert await store.prune() == 1, "only the line about the one before"
        lines = [one.entry.detail for one in await store.audit() if one.entry.kind == "audit.pruned"]
        assert ["11-3" in str(one) for one in lines] == [True]
        assert (await store.check_audit()).flaws == ()


def test_an_anchor_that_is_none_is_told_and_stops_nothing() -> None:
    good = Anchor.after(ChainHead(0, bytes(32)), 1.0, AnchorContent(begins=2))
    bad = Anchor(2, 1.0, "{", good.digest, bytes(32))
    assert AnchorBook.of([good, bad]).begun[2] == good.digest
