"""Listings must not grow slower with the record: each finds its lines by an index, in order, without sorting."""

import sqlite3
from collections.abc import Callable

import pytest

from controller.adapters.sql import queries
from controller.domain.audit_id import AuditCursor, AuditId


def _audit(connection: sqlite3.Connection, *, alerts_only: bool = False, **wanted: str | None) -> None:
    queries.audit(
        connection, wanted, alerts_only=alerts_only, after=AuditCursor(AuditId(1, 7), 1.0), limit=5, newest_first=True
    )


@pytest.mark.parametrize(
    ("listing", "way"),
    [
        (_audit, "audit USING INDEX audit_at"),
        (lambda it: _audit(it, device_id="d"), "audit USING INDEX audit_device"),
        (lambda it: _audit(it, case_id="c"), "audit USING INDEX audit_case"),
        (lambda it: _audit(it, alerts_only=True), "audit USING INDEX audit_alert"),
        (lambda it: queries.commands(it, {"device_id": "d"}, 5), "commands USING INDEX commands_device"),
        (lambda it: queries.commands(it, {"state": "failed"}, 5), "commands USING INDEX commands_state"),
        (lambda it: queries.commands(it, {"command_id": "c"}, 5), "commands USING INDEX sqlite_autoindex_commands_1"),
        (lambda it: queries.report(it, "d"), "reports USING INDEX sqlite_autoindex_reports_1"),
        (queries.effects, "SCAN outbox"),
    ],
)
def test_a_listing_finds_its_rows_in_order(
    memory: sqlite3.Connection, listing: Callable[[sqlite3.Connection], object], way: str
) -> None:
    asked: list[str] = []
    memory.set_trace_callback(asked.append)
    listing(memory)
    memory.set_trace_callback(None)
    (statement,) = asked
    plan = [row[3] for row in memory.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert len(plan) == 1, plan  # a second line would be a sort
    assert way in plan[0]
