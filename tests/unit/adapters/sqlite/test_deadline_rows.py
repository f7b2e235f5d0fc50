"""Deadlines and waiting devices in rows: what the migration makes of the devices there are, and how they are found."""

import sqlite3
from dataclasses import replace

import sqlite_utils

from controller.adapters.sql import codec
from controller.adapters.sqlite import device_rows
from controller.adapters.sqlite.migrations.m0001_initial import m0001_initial
from controller.adapters.sqlite.migrations.m0006_deadlines import m0006_deadlines
from controller.domain.device import ContainmentCase, Device, HoldReason, OpenCommand, PendingContainment, RuleState
from controller.domain.guards.guards import NEWCOMER_FOR, FleetGuards
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from schemas.commands import CommandState

DAY = 86_400.0
START = 1_000 * DAY
FAILING = {"p/r": RuleState(RuleResult.FAIL, 1.0, 1, "", 1, 0.0)}


def _waiting(device_id: str, first_seen: float, since: float, token: str = "") -> Device:
    held = PendingContainment(HoldReason.BLAST_RADIUS, ContainmentLevel.ISOLATED, ("p/r",), since, since)
    return Device(device_id, first_seen, since, pending=held, enrolled_with=token, rules=FAILING)


def test_the_migration_finds_who_may_have_a_deadline_and_who_waits_where() -> None:
    new, old = START + 8 * DAY, START + 20 * DAY
    assert NEWCOMER_FOR == 7 * DAY
    command = OpenCommand("c", "rescan", (), 1, CommandState.SCHEDULED, 1.0, 2.0, "op")
    case = ContainmentCase("c", ContainmentLevel.RESTRICTED, (), "op", "why", 1.0, 1.0)
    protected = PendingContainment(HoldReason.PROTECTED, ContainmentLevel.ISOLATED, ("p/r",), old, old)
    everyone = [
        Device("healthy", START, old),
        Device("command", START, old, commands=(command,)),
        Device("case", START, old, case=case),
        Device("failing", START, old, rules=FAILING, pending=protected),
        _waiting("early", START + DAY, START + 2 * DAY),
        _waiting("early-token", START + DAY, START + 2 * DAY, "t1"),
        _waiting("established", START, old),
        _waiting("new", old - DAY, old),
        _waiting("new-token", new, new, "t1"),
    ]
    connection = sqlite3.connect(":memory:")
    database = sqlite_utils.Database(connection)
    m0001_initial(database)
    names = ", ".join(codec.DEVICE_COLUMNS)
    connection.executemany(
        f"INSERT INTO devices ({names}) VALUES ({', '.join('?' * len(codec.DEVICE_COLUMNS))})",
        map(codec.device_row, everyone),
    )
    m0006_deadlines(database)
    due = device_rows.due(connection, START, None, 99)
    assert sorted(due) == sorted(device.device_id for device in everyone[1:])
    guards = replace(FleetGuards(), began_at=START)
    found = dict(connection.execute("SELECT device_id, waits_in FROM devices WHERE waits_in IS NOT NULL"))
    assert found == {device.device_id: guards.pool_of(device, old) for device in everyone[4:]}
    assert set(found.values()) == {"", "new", "token:t1"}


def test_deadlines_are_found_by_their_index_and_silence_sorts_only_what_it_finds(memory: sqlite3.Connection) -> None:
    asked: list[str] = []
    memory.set_trace_callback(asked.append)
    device_rows.due(memory, 1.0, None, 5)
    memory.set_trace_callback(None)
    (statement,) = asked
    plan = [row[3] for row in memory.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert len(plan) == 1, plan
    assert "USING INDEX devices_due" in plan[0]
