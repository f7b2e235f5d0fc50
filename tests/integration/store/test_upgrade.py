"""Stores of older versions: tokens from before there were accounts, and the one chain of audit lines, go on."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
import sqlite_utils
from sqlite_utils.migrations import Migrations

from controller.adapters.sql.notifications import SqlNotificationStore
from controller.adapters.sqlite.audit_chain import check_file
from controller.adapters.sqlite.migrations.m0001_initial import m0001_initial
from controller.adapters.sqlite.migrations.m0002_accounts import m0002_accounts
from controller.adapters.sqlite.migrations.m0003_notifications import m0003_notifications
from controller.adapters.sqlite.migrations.m0004_approvals import m0004_approvals
from controller.adapters.sqlite.migrations.m0005_queries import m0005_queries
from controller.adapters.sqlite.schema import APPLICATION_ID
from controller.domain.audit_anchors import AuditHeads
from controller.domain.audit_chain import START, ChainHead, next_digest, row_bytes
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.principal import UNOWNED, Principal
from controller.domain.scopes import ALL, Scope
from controller.ports.errors import StoreError
from controller.ports.store import StoreWrites
from tests.support.store import opened

ADMIN = "read contain command policy rollout identity admin"


def _old_store(path: Path) -> None:
    connection = sqlite3.connect(path)
    first = Migrations("cordon")
    first()(m0001_initial)
    first.apply(sqlite_utils.Database(connection))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("INSERT INTO tokens (name, digest, created_at, scopes) VALUES ('operator', ?, 1.0, ?)",
                       ("a" * 64, ADMIN))  # fmt: skip
    connection.execute("INSERT INTO tokens (name, digest, created_at, scopes) VALUES ('bot', ?, 1.0, 'read')",
                       ("b" * 64,))  # fmt: skip
    charges = [("a" * 32, "edge-1", 5.0), ("b" * 32, "edge-1", 7.0), ("", "edge-2", 6.0), ("pool:x", "edge-3", 6.0)]
    connection.executemany("INSERT INTO charges (ledger, subject, at) VALUES (?, ?, ?)", charges)
    connection.commit()
    connection.close()


async def test_tokens_of_an_older_store_go_on_as_one_person(tmp_path: Path) -> None:
    _old_store(tmp_path / "store.db")
    async with opened(tmp_path / "store.db") as store:
        bot, operator = await store.tokens()
        assert (bot.owner, operator.owner) == ("", "")
        assert set(operator.scopes) == set(ALL), "who administered may still verify the record"
        assert bot.scopes == (Scope.READ,)
        one, other = operator.principal_of(None), bot.principal_of(None)
        assert one.is_same_person(other, 0.0)
        former = Principal(operator.credential, "operator")  # as requests and rollouts of that time have it
        assert former.is_same_person(other, 0.0)
        assert former.standing == one.standing
        charges = (await store.guard_books()).charges
        assert sorted(charges) == [("", "edge-2", 6.0), ("pool:x", "edge-3", 6.0), (UNOWNED, "edge-1", 7.0)]


MESSAGE = {"kind": "k", "severity": 2, "status": "open", "headline": "h", "thread": "t", "subject": "s", "at": 1.0}


def _one_chain(path: Path, rows: int, pruned: int) -> str:
    """A store from before there were several writers, of which the first rows were pruned; returns the head."""
    connection = sqlite3.connect(path)
    older = Migrations("cordon")
    for migration in (m0001_initial, m0002_accounts, m0003_notifications, m0004_approvals, m0005_queries):
        older()(migration)
    older.apply(sqlite_utils.Database(connection))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    head = START
    for seq in range(1, rows + 1):
        through = json.dumps({"through": pruned}) if seq == rows else None
        kind, actor = ("audit.pruned", "cordon") if seq == rows else ("device.online", "d")
        body = row_bytes(float(seq), kind, "d", actor, "", alert=False, detail=through)
        digest = next_digest(head.digest, seq, body)
        values = (seq, float(seq), kind, "d", actor, "", 0, through, head.digest + digest)
        connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        head = ChainHead(seq, digest)
        if seq == pruned:
            connection.execute("REPLACE INTO meta VALUES ('audit.anchor', ?)", (str(head),))
    connection.execute("DELETE FROM audit WHERE seq <= ?", (pruned,))
    connection.execute("INSERT INTO meta VALUES ('notifications.cursor', '3')")
    for number, seq in enumerate((5, 0)):
        text = json.dumps({**MESSAGE, "seq": seq})
        connection.execute(
            "INSERT INTO notification_deliveries VALUES (?, ?, 'ops', '', 1, 'pending', 1.0, 0, 1.0, 0.0, '', ?)",
            (number, f"k{number}", text),
        )
    thread = {"sink": "i", "key": "t", "subject": "s", "opened_at": 1.0, "told_at": 1.0, "severity": 2, "is_open": True}
    for key, last in (("t", {**MESSAGE, "seq": 4}), ("u", None)):
        text = json.dumps({**thread, "key": key, "last": last})
        connection.execute("INSERT INTO notification_threads VALUES ('i', ?, 'c', 1.0, 2, 1, ?)", (key, text))
    connection.commit()
    connection.close()
    return str(head)


async def test_lines_of_an_older_store_become_those_of_writer_1(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    noted = AuditHeads.parse(_one_chain(path, rows=8, pruned=2))
    with pytest.raises(StoreError, match="written by an older version"):
        check_file(path)
    async with opened(path) as store:
        checked = await store.check_audit(noted)
        assert checked.flaws == ()
        assert [str(one.id) for one in await store.audit(newest_first=False)] == [f"1-{n}" for n in range(3, 9)]
        await store.commit(StoreWrites(audit=((9.0, AuditEntry(AuditKind.DEVICE_ONLINE, "d", "t")),)))
        assert str((await store.audit(limit=1))[0].id) == "1-9"
        assert (await store.check_audit(noted)).is_intact
        notifications = SqlNotificationStore(store)
        assert (await notifications.unplanned(100))[1] == {1: 9}
        found = await notifications.threads([("i", "t"), ("i", "u")])
        assert [one.last and one.last.line for one in found.values()] == ["1-4", None]
        assert [one.delivery.message.line for one in await notifications.log()] == ["", "1-5"]


async def test_what_was_cut_off_before_the_upgrade_is_still_missing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    _one_chain(path, rows=8, pruned=2)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM audit WHERE seq >= 7")
    async with opened(path) as store:
        texts = [one.text for one in (await store.check_audit()).flaws]
    assert texts == [
        "rows 1-7 to 1-8 were removed",
        "rows 1-1 to 1-2 are missing, and no row records that they were pruned",
    ]
