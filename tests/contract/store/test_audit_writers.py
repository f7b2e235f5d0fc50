"""Lines of several writers in lists and in what notifications are planned from; on each engine."""

import random

import pytest

from controller.adapters.sql.notifications import SqlNotificationStore
from controller.adapters.sql.store import SqlStore
from controller.domain.audit_id import AuditCursor
from controller.domain.audit_kinds import AuditKind
from controller.domain.notifications.planning import Plan
from controller.ports.notifications import SinkChange
from controller.ports.store import StoreWrites
from tests.support.audit_chains import begin, extend, line
from tests.support.notifications import sink

ALERTS = AuditKind.CONTAINMENT_DECIDED
OTHERS = AuditKind.DEVICE_ONLINE


async def pages(store: SqlStore, *, newest_first: bool, limit: int = 2) -> list[str]:
    """Names of all lines of the device `d`, page by page; each cursor goes through text as in the API."""
    found: list[str] = []
    after = None
    while page := await store.audit(device_id="d", after=after, limit=limit, newest_first=newest_first):
        found += [str(one.id) for one in page]
        after = AuditCursor.parse(str(page[-1].cursor))
    return found


async def test_lists_are_by_time_then_writer_then_number(store: SqlStore) -> None:
    await begin(store, 12)
    await begin(store, 13)
    await extend(store, 12, [line(1.0), line(3.5), line(3.5), line(9.0)])
    await extend(store, 13, [line(2.0), line(3.5), line(8.0)])
    expected = ["12-1", "13-1", "12-2", "12-3", "13-2", "13-3", "12-4"]
    assert await pages(store, newest_first=False) == expected
    assert await pages(store, newest_first=True, limit=3) == expected[::-1]
    between = await store.audit(device_id="d", since=2.0, until=8.0, newest_first=False)
    assert [str(one.id) for one in between] == expected[1:5]


async def test_a_cursor_stays_right_when_its_line_is_pruned(store: SqlStore) -> None:
    await begin(store, 12)
    await extend(store, 12, [line(float(number)) for number in range(5)])
    (_, second) = await store.audit(device_id="d", limit=2, newest_first=False)
    await store.write(
        lambda connection: connection.execute("DELETE FROM audit WHERE id <= ?", (second.id.key,)).rowcount
    )
    rest = await store.audit(device_id="d", after=second.cursor, newest_first=False)
    assert [str(one.id) for one in rest] == ["12-3", "12-4", "12-5"]


async def planned(notifications: SqlNotificationStore, limit: int) -> list[str]:
    """Plans everything that waits, and returns the lines in their order."""
    found: list[str] = []
    while True:
        lines, cursor = await notifications.unplanned(limit)
        if not cursor:
            return found
        found += [str(one.id) for one in lines]
        await notifications.plan(Plan(), cursor, 10, 0.0)


@pytest.fixture
async def notifications(store: SqlStore) -> SqlNotificationStore:
    await begin(store, 12)
    await extend(store, 12, [line(1.0, kind=ALERTS)])
    made = SqlNotificationStore(store)
    assert await made.add_sink(sink(), 9, StoreWrites()) is SinkChange.DONE
    assert await planned(made, 10) == [], "nobody is told of what was before"
    return made


async def test_each_line_is_planned_once_also_if_it_becomes_visible_late(
    store: SqlStore, notifications: SqlNotificationStore
) -> None:
    await begin(store, 13)
    await extend(store, 13, [line(5.0, kind=ALERTS), line(6.0, kind=OTHERS), line(7.0, kind=ALERTS)])
    assert await planned(notifications, 2) == ["13-1", "13-3"]
    await extend(store, 12, [line(4.0, kind=ALERTS)])
    await begin(store, 14)
    await extend(store, 14, [line(2.0, kind=ALERTS)])
    assert await planned(notifications, 2) == ["14-1", "12-2"]
    assert await planned(notifications, 2) == []


async def test_lines_of_several_writers_are_merged_by_time_and_keep_the_order_of_their_writer(
    store: SqlStore, notifications: SqlNotificationStore
) -> None:
    await begin(store, 13)
    # The clock of 12 goes back once.
    await extend(store, 12, [line(at, kind=ALERTS) for at in (10.0, 20.0, 15.0, 40.0)])
    await extend(store, 13, [line(at, kind=ALERTS) for at in (11.0, 18.0, 30.0)])
    expected = ["12-2", "13-1", "13-2", "12-3", "12-4", "13-3", "12-5"]
    assert await planned(notifications, 3) == expected


@pytest.mark.parametrize("seed", range(3))
async def test_every_line_exactly_once_in_any_order_of_commits_and_pages(
    store: SqlStore, notifications: SqlNotificationStore, seed: int
) -> None:
    chance = random.Random(seed)
    told: list[str] = []
    expected: list[str] = []
    last = {12: 1}
    at = 10.0
    for _ in range(30):
        match chance.randrange(4):
            case 0 if len(last) < 5:
                writer = 12 + len(last)
                await begin(store, writer)
                last[writer] = 0
            case 1:
                told += await planned(notifications, chance.randrange(1, 4))
            case _:
                writer, at = chance.choice(sorted(last)), at + 1
                kinds = [chance.choice((ALERTS, OTHERS)) for _ in range(chance.randrange(1, 6))]
                await extend(store, writer, [line(at - chance.randrange(5), kind=kind) for kind in kinds])
                for kind in kinds:
                    last[writer] += 1
                    expected += [f"{writer}-{last[writer]}"] if kind is ALERTS else []
    told += await planned(notifications, 2)
    assert sorted(told) == sorted(expected)
