"""Rows of the guards: recent containments, waivers, approval requests; and what policies rest on."""

from collections.abc import Mapping
from typing import Any, Final

from controller.adapters.sql import codec, meta
from controller.adapters.sql.connection import SqlConnection
from controller.domain.guards.approvals import ApprovalRequest
from controller.domain.guards.waivers import Waiver
from controller.ports.errors import UnknownRowError
from controller.ports.store import GuardSnapshot, StoredKnowledge, StoreWrites

KEPT_DAYS: Final = 90.0  # retention of ended requests and of charges
KEPT_REQUESTS: Final = 20_000
_DAY: Final = 86_400.0  # seconds
_POLICIES: Final = "policies in force"  # key in `meta`
_KNOWLEDGE: Final = "knowledge"  # key in `meta`

StatementRows = list[tuple[Any, ...]]
_WAIVER: Final = codec.JsonCodec(Waiver)
_REQUEST: Final = codec.JsonCodec(ApprovalRequest)
_FILE: Final = codec.JsonCodec(StoredKnowledge)
_CHARGE: Final = (
    "INSERT INTO charges (ledger, subject, at) VALUES (?, ?, ?)"
    " ON CONFLICT (ledger, subject) DO UPDATE SET at = excluded.at"
)
_WAITING: Final = "SELECT waits_in, count(*) FROM devices WHERE waits_in IS NOT NULL GROUP BY waits_in"
_PUT_WAIVER: Final = (
    "INSERT INTO waivers (waiver_id, expires_at, body) VALUES (?, ?, ?)"
    " ON CONFLICT (waiver_id) DO UPDATE SET expires_at = excluded.expires_at, body = excluded.body"
)
_PUT_REQUEST: Final = (
    "INSERT INTO approvals (request_id, expires_at, kind, state, requester, asked_at, may_change, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (request_id) DO UPDATE"
    " SET state = excluded.state, may_change = excluded.may_change, body = excluded.body"
    " WHERE approvals.may_change = 1"  # what has ended stays so, whoever else writes beside the controller
)


def batches(writes: StoreWrites) -> tuple[tuple[str, StatementRows], ...]:
    """Returns the guards' statements of a commit, with their rows."""
    charged: StatementRows = [(ledger, device, at) for ledger, device, at in writes.charges if at is not None]
    struck: StatementRows = [(ledger, device) for ledger, device, at in writes.charges if at is None]
    waived: StatementRows = [
        (key, waiver.expires_at, _WAIVER.dump(waiver)) for key, waiver in writes.waivers if waiver is not None
    ]
    over: StatementRows = [(key,) for key, waiver in writes.waivers if waiver is None]
    asked: StatementRows = [_request_row(one) for one in writes.requests]
    known: StatementRows = [] if writes.knowledge is None else [(_KNOWLEDGE, _FILE.dump(writes.knowledge))]
    return (
        (_CHARGE, charged),
        ("DELETE FROM charges WHERE ledger = ? AND subject = ?", struck),
        (_PUT_WAIVER, waived),
        ("DELETE FROM waivers WHERE waiver_id = ?", over),
        (_PUT_REQUEST, asked),
        (meta.PUT, known),
    )


def _request_row(one: ApprovalRequest) -> tuple[Any, ...]:
    found = (one.request_id, one.expires_at, one.kind.value, one.state.value, one.requester.key, one.asked_at)
    return (*found, int(one.may_change), _REQUEST.dump(one))


def books(connection: SqlConnection) -> GuardSnapshot:
    """Returns everything, oldest first, without a version; of the requests those that may still change."""
    charges = connection.execute("SELECT ledger, subject, at FROM charges ORDER BY at").fetchall()
    requests = connection.execute("SELECT body FROM approvals WHERE may_change = 1 ORDER BY asked_at").fetchall()
    return GuardSnapshot(
        tuple((ledger, subject, at) for ledger, subject, at in charges),
        waivers_of(connection),
        tuple(_REQUEST.load("an approval request", body) for (body,) in requests),
        waiting=dict(connection.execute(_WAITING).fetchall()),
    )


def waivers_of(connection: SqlConnection) -> tuple[Waiver, ...]:
    rows = connection.execute("SELECT body FROM waivers ORDER BY waiver_id").fetchall()
    return tuple(_WAIVER.load("a waiver", body) for (body,) in rows)


def approval(connection: SqlConnection, request_id: str) -> ApprovalRequest | None:
    row = connection.execute("SELECT body FROM approvals WHERE request_id = ?", (request_id,)).fetchone()
    return None if row is None else _REQUEST.load("an approval request", row[0])


def approvals(
    connection: SqlConnection, wanted: Mapping[str, str | None], limit: int, after: str | None = None
) -> list[ApprovalRequest]:
    """Returns requests, newest first; `wanted` has the columns that must be equal, None for any.

    Raises:
        UnknownRowError: there is no request `after`.
    """
    given = {column: value for column, value in wanted.items() if value is not None}
    where, values = ["1 = 1", *(f"{column} = ?" for column in given)], list(given.values())
    if after is not None:
        if approval(connection, after) is None:
            raise UnknownRowError(after)
        where.append("(asked_at, request_id) < (SELECT asked_at, request_id FROM approvals WHERE request_id = ?)")
        values.append(after)
    rows = connection.execute(
        f"SELECT body FROM approvals WHERE {' AND '.join(where)}"  # noqa: S608 - values are bound
        " ORDER BY asked_at DESC, request_id DESC LIMIT ?",
        (*values, limit),
    )
    return [_REQUEST.load("an approval request", body) for (body,) in rows]


def accepted_policies(connection: SqlConnection) -> str:
    return meta.get(connection, _POLICIES) or ""


def accept_policies(connection: SqlConnection, version: str) -> None:
    meta.put(connection, _POLICIES, version)


def knowledge(connection: SqlConnection) -> StoredKnowledge | None:
    body = meta.get(connection, _KNOWLEDGE)
    return None if body is None else _FILE.load("the knowledge", body)


def prune(connection: SqlConnection, now: float) -> int:
    """Deletes rows past their retention; returns how many."""
    before = now - KEPT_DAYS * _DAY
    gone = connection.execute("DELETE FROM charges WHERE at < ?", (before,)).rowcount
    gone += connection.execute("DELETE FROM approvals WHERE expires_at < ? AND may_change = 0", (before,)).rowcount
    surplus = "SELECT request_id FROM approvals ORDER BY asked_at DESC, request_id DESC LIMIT ? OFFSET ?"
    return (
        gone
        + connection.execute(
            f"DELETE FROM approvals WHERE may_change = 0 AND request_id IN ({surplus})",  # noqa: S608 - a constant
            (KEPT_REQUESTS, KEPT_REQUESTS),
        ).rowcount
    )
