"""A store from before there were accounts: its tokens, and what they contained, go on."""

import sqlite3
from pathlib import Path

import sqlite_utils
from sqlite_utils.migrations import Migrations

from controller.adapters.sqlite.migrations.m0001_initial import m0001_initial
from controller.adapters.sqlite.schema import APPLICATION_ID
from controller.domain.principal import UNOWNED, Principal
from controller.domain.scopes import ALL, Scope
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
