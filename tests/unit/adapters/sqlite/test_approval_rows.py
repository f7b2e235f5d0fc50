"""Rows of approval requests: those of the first version, those that have ended, and how many are kept."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import sqlite_utils

from controller.adapters.sql import guard_state
from controller.adapters.sqlite.migrations.m0004_approvals import m0004_approvals
from controller.domain.guards.approvals import ApprovalKind, ApprovalRequest, ApprovalState
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.ports.store import StoreWrites
from tests.support.store import NOW, opened

OLD = {
    "request_id": "01", "kind": "contain", "requester": {"key": "ab", "name": "ada", "makers": []}, "reason": "worm",
    "level": "isolated", "hold": None, "devices": ["a", "b"], "asked_at": 5.0, "expires_at": 9.0, "state": "open",
    "decided_by": "", "decided_at": 0.0, "even_protected": False, "kick": False, "clear_retained": False,
}  # fmt: skip


def _request(number: int) -> ApprovalRequest:
    person = Principal("account:x", "ada")
    kind, level = ApprovalKind.CONTAIN, ContainmentLevel.ISOLATED
    return ApprovalRequest(f"{number:02}", kind, person, "r", level, None, ("a",), NOW + number, NOW + 10.0)


def test_requests_of_the_first_version_are_history_and_have_to_be_asked_again() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE TABLE approvals (request_id TEXT PRIMARY KEY, expires_at REAL NOT NULL, body TEXT NOT NULL)"
    )
    approved = {**OLD, "request_id": "02", "asked_at": 6.0, "state": "approved", "decided_by": "operator:bob"}
    for row in (OLD, approved):
        values = (row["request_id"], row["expires_at"], json.dumps(row))
        connection.execute("INSERT INTO approvals (request_id, expires_at, body) VALUES (?, ?, ?)", values)
    m0004_approvals(sqlite_utils.Database(connection))
    found = guard_state.approvals(connection, {}, 10)
    assert [(one.request_id, one.state.value, one.unfinished) for one in found] == [
        ("02", "approved", False), ("01", "expired", False)
    ]  # fmt: skip
    assert found[1].outcome == "Cordon was upgraded: ask again"
    assert [one.request_id for one in guard_state.approvals(connection, {"state": "expired"}, 10)] == ["01"]


async def test_what_has_ended_is_written_over_by_nobody(tmp_path: Path) -> None:
    """A command on the machine writes beside the controller, by what it read before."""
    first = _request(1)
    ended = first.with_decision(ApprovalState.APPROVED, "operator:bob", NOW)
    async with opened(tmp_path / "c.db") as store:
        for one in (first, ended, first, replace(ended, state=ApprovalState.EXPIRED)):
            await store.commit(StoreWrites(requests=(one,)))
        assert await store.approval("01") == ended
        assert (await store.guard_books()).requests == ()


async def test_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_state, "KEPT_REQUESTS", 2)
    requests = [_request(number) for number in range(5)]
    ended = (one.with_decision(ApprovalState.REJECTED, "x", NOW) for one in requests[1:])
    async with opened(tmp_path / "c.db") as store:
        await store.commit(StoreWrites(requests=(requests[0], *ended)))
        await store.prune()
        kept = await store.approvals()
    assert [one.request_id for one in kept] == ["04", "03", "00"], "and what still waits"
