"""The audit log on PostgreSQL: lists that are index scans, verification without a controller, chains of runs."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from controller.adapters.postgres.connection import PostgresConnection, connect
from controller.adapters.postgres.store import PostgresStore
from controller.adapters.sql import queries
from controller.adapters.sql.notifications import SqlNotificationStore
from controller.cli.app import run_safely
from controller.domain.audit_id import AuditCursor, AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.notifications.planning import Plan
from controller.ports.notifications import SinkChange
from controller.ports.store import StoreWrites
from tests.support.notifications import sink
from tests.support.postgres import PostgresServer, address_of
from tests.support.postgres_store import opened
from tests.support.store import line

pytestmark = pytest.mark.postgres
ROWS = 20_000
COMMITS = 15
_FILL = f"""INSERT INTO audit SELECT (n % 3 + 2) * 1099511627776 + n, n, 'device.online', 'd-' || n % 500, 'a',
    CASE n % 50 WHEN 0 THEN 'c-' || n % 100 ELSE '' END, CASE n % 100 WHEN 7 THEN 1 ELSE 0 END, NULL, NULL
    FROM generate_series(1, {ROWS}) AS n"""


class Explained(PostgresConnection):
    """Keeps the plan of each statement beside its result."""

    plans: list[str]

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        if sql.startswith("SELECT id"):
            found = super().execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters).fetchone()
            self.plans.append(json.dumps(found[0]))
        return super().execute(sql, parameters)


async def test_lists_find_their_lines_by_an_index_in_order(server: PostgresServer, database: str) -> None:
    async with opened(server.url(database)):
        pass  # makes the tables
    server.query(database, _FILL)
    connection = Explained(connect(address_of(server.url(database)), "tests").raw)
    connection.plans = []
    connection.execute("ANALYZE audit")
    connection.execute("SET enable_bitmapscan = off")  # for a case of few lines the planner would rather sort these
    cursor = AuditCursor(AuditId(3, 15_000), 15_000.0)
    for wanted, alerts, index in (
        ({}, False, "audit_at"),
        ({"device_id": "d-7"}, False, "audit_device"),
        ({"case_id": "c-50"}, False, "audit_case"),
        ({}, True, "audit_alert"),
    ):
        for newest_first in (True, False):
            found = queries.audit(
                connection, dict(wanted), alerts_only=alerts, after=cursor, limit=3, newest_first=newest_first
            )
            assert len(found) == 3
            plan = connection.plans.pop()
            assert f'"Index Name": "{index}"' in plan, plan
            assert '"Sort' not in plan, plan
    connection.close()


async def test_controllers_and_a_command_write_at_once_and_each_alert_is_planned_once(
    server: PostgresServer, database: str
) -> None:
    url = server.url(database)
    async with opened(url, "a") as one, opened(url, "b") as other, opened(url, None) as command:
        stores = (one, other, command)
        notifications = SqlNotificationStore(stores[0])
        assert await notifications.add_sink(sink(), 9, StoreWrites()) is SinkChange.DONE
        told: list[str] = []

        async def plan_all() -> bool:
            lines, cursor = await notifications.unplanned(3)
            told.extend(str(one.id) for one in lines)
            await notifications.plan(Plan(), cursor, 10, 0.0)
            return bool(cursor)

        async def write_all(store: PostgresStore) -> None:
            for number in range(COMMITS):
                alert = AuditEntry(AuditKind.CONTAINMENT_DECIDED, f"d{number}", "cordon", alert=True)
                await store.commit(StoreWrites(audit=((time.time(), alert),)))

        async with asyncio.TaskGroup() as group:
            writing = [group.create_task(write_all(store)) for store in stores]
            while not all(one.done() for one in writing):
                await plan_all()
        while await plan_all():
            pass
        assert sorted(told) == sorted(f"{writer}-{seq}" for writer in (1, 2, 3) for seq in range(1, COMMITS + 1))
        listed = await stores[1].audit(limit=1000, newest_first=False)
        assert [(one.at, one.id) for one in listed] == sorted((one.at, one.id) for one in listed)
        assert (await stores[1].check_audit()).flaws == ()


async def test_a_database_is_verified_without_a_controller(
    server: PostgresServer, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.url(database)
    for number in range(3):
        async with opened(url) as store:
            await store.commit(line(f"d{number}"))
    async with opened(url, None) as store:
        await store.commit(line("command"))
        names = [str(one.id) for one in await store.audit(newest_first=False)]
    assert names == ["1-1", "2-1", "3-1", "4-1"]
    assert run_safely(["audit", "head", "--store", url]) == 0
    head = capsys.readouterr().out.strip()
    assert head.startswith("a3:")
    assert [part.partition(":")[0] for part in head.split(",")] == ["a3", "1-1", "4-1"]
    assert run_safely(["audit", "verify", "--store", url, "--noted", head]) == 0
    server.query(database, "UPDATE audit SET actor = 'eve' WHERE id = 3 * 1099511627776 + 1")
    capsys.readouterr()
    assert run_safely(["audit", "verify", "--store", url]) == 1
    assert capsys.readouterr().out == "row 3-1 was changed after it was written\n"
    assert run_safely(["audit", "verify", "--store", url, "--file", "x"]) == 2
