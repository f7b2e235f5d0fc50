"""The record of a real store, tampered with as somebody would who can write the file."""

import sqlite3
from pathlib import Path

import pytest

from controller.adapters.sqlite.audit_chain import check_file
from controller.cli.app import run_safely
from controller.domain.audit_anchors import AuditHeads
from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.errors import StoreError
from controller.ports.store import StoreWrites
from tests.support.store import NOW, opened

ROWS = 20
KEY = AuditId(1, 0).key


@pytest.fixture
async def record(tmp_path: Path) -> Path:
    """A store with a record of some commits."""
    path = tmp_path / "store.db"
    async with opened(path) as store:
        for number in range(ROWS // 2):
            entry = AuditEntry(
                AuditKind.DEVICE_ONLINE, f"d{number}", "actor", "", {"ä": number, "list": [1, {"x": None}]}
            )
            await store.commit(StoreWrites(audit=((NOW + number, entry), (NOW + number, entry))))
    return path


def tamper(path: Path, *statements: str) -> None:
    """Change the file past Cordon."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            for statement in statements:
                connection.execute(statement)
    finally:
        connection.close()


def told(path: Path, noted: AuditHeads | None = None) -> list[tuple[str, int, int]]:
    """The flaws of chain 1, with the numbers of the rows."""
    flaws = check_file(path, noted).flaws
    return [(one.what, AuditId.parse(one.first).seq, AuditId.parse(one.last).seq) for one in flaws]


def test_untouched(record: Path) -> None:
    checked = check_file(record)
    assert (checked.rows, checked.flaws, checked.heads.chains[1].seq) == (ROWS, (), ROWS)


@pytest.mark.parametrize(
    "change",
    ["kind = 'x'", "device_id = 'x'", "actor = 'x'", "case_id = 'x'", "alert = 1", "detail = '{}'", "detail = NULL",
     "at = at + 0.001"],
)  # fmt: skip
def test_any_column_changed(record: Path, change: str) -> None:
    tamper(record, f"UPDATE audit SET {change} WHERE id = {KEY + 7}")
    assert told(record) == [("changed", 7, 7)]


def test_two_rows_swapped(record: Path) -> None:
    tamper(record, "UPDATE audit SET id = 1000 WHERE id = 1099511627780",
           "UPDATE audit SET id = 1099511627780 WHERE id = 1099511627782",
           "UPDATE audit SET id = 1099511627782 WHERE id = 1000")  # fmt: skip
    assert told(record) == [("changed", 4, 4), ("changed", 6, 6)]


def test_rows_removed(record: Path) -> None:
    tamper(record, f"DELETE FROM audit WHERE id IN ({KEY + 3}, {KEY + 9}, {KEY + 10})")
    assert told(record) == [("removed", 3, 3), ("removed", 9, 10)]


def test_the_end_cut_off(record: Path) -> None:
    noted = check_file(record).heads
    tamper(record, f"DELETE FROM audit WHERE id > {KEY + 15}")
    assert told(record) == [("removed", 16, 20)]
    tamper(
        record,
        f"UPDATE audit_chains SET seq = 15, digest = (SELECT substr(chain, 33) FROM audit WHERE id = {KEY + 15})",
    )
    assert told(record) == []  # nothing in the file tells of it any more
    assert told(record, noted) == [("removed", 16, 20)]


def test_the_beginning_cut_off(record: Path) -> None:
    (chain,) = sqlite3.connect(record).execute("SELECT chain FROM audit WHERE id = ?", (KEY + 5,)).fetchone()
    tamper(record, f"DELETE FROM audit WHERE id <= {KEY + 5}")
    assert told(record)[0] == ("removed", 1, 5)
    tamper(record, f"INSERT INTO audit_pruned VALUES (1, 5, x'{chain[32:].hex()}', {KEY + 18})")
    assert told(record) == [("removed", 1, 5)]  # pruned, it seems, but no row says so


def test_rows_inserted(record: Path) -> None:
    tamper(record, "INSERT INTO audit (at, kind, device_id, actor, case_id, alert) VALUES (1, 'k', 'd', 'a', '', 0)")
    assert told(record) == [("inserted", ROWS + 1, ROWS + 1)]


async def test_writing_goes_on_behind_what_was_done(record: Path) -> None:
    tamper(record, f"DELETE FROM audit WHERE id > {KEY + 18}")
    async with opened(record) as store:
        await store.commit(StoreWrites(audit=((NOW, AuditEntry(AuditKind.DEVICE_ONLINE, "d", "actor")),)))
        assert [one.what for one in (await store.check_audit()).flaws] == ["removed"]
        assert (await store.audit_heads()).chains[1].seq == ROWS + 1
    assert told(record) == [("removed", 19, 20)]


async def test_a_failed_part_of_a_group_leaves_no_hole(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        good = StoreWrites(audit=((NOW, AuditEntry(AuditKind.DEVICE_ONLINE, "d", "actor")),))
        bad = StoreWrites(audit=((float("nan"), AuditEntry(AuditKind.DEVICE_ONLINE, "d", "actor")),))
        for writes in (good, bad, good):
            try:
                await store.commit(writes)
            except (StoreError, ValueError):
                assert writes is bad
        assert (await store.check_audit()).flaws == ()
        assert (await store.audit_heads()).chains[1].seq == 2


def test_commands(record: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_safely(["audit", "head", "--file", str(record)]) == 0
    head = capsys.readouterr().out.strip()
    assert run_safely(["audit", "verify", "--file", str(record), "--noted", head]) == 0
    assert "as they were written" in capsys.readouterr().err
    tamper(record, f"UPDATE audit SET actor = 'operator:eve' WHERE id = {KEY + 2}")
    assert run_safely(["audit", "verify", "--file", str(record)]) == 1
    assert capsys.readouterr().out == "row 1-2 was changed after it was written\n"
    assert run_safely(["audit", "verify", "--file", str(record), "--head", "x"]) == 2
    assert run_safely(["audit", "verify", "--file", str(tmp_path / "absent")]) == 1
