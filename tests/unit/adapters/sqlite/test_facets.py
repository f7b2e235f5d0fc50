"""What a commit writes for lists of devices (migration m0005), and what it leaves alone."""

import sqlite3
from dataclasses import replace

from controller.adapters.sqlite.dead_letters import DeadLetterIndex
from controller.adapters.sqlite.statements import work_of
from controller.domain.device import Device, RuleState
from controller.domain.policy.findings import RuleResult
from controller.ports.store import StoredReport, StoreWrites

FAILING = Device(
    "d", 1.0, 1.0, tags=("a",), agent="x", digest="y", rules={"p/r": RuleState(RuleResult.FAIL, 1.0, 1, "it does")}
)


def _written(connection: sqlite3.Connection, writes: StoreWrites) -> int:
    """Rows that are written, by triggers too."""
    before = connection.total_changes
    work_of(writes, DeadLetterIndex((), 1, most=10, most_per_device=10), payload_bytes=4).run(connection)
    return connection.total_changes - before


def test_only_a_change_of_what_lists_are_about_writes_more_than_the_row(memory: sqlite3.Connection) -> None:
    assert _written(memory, StoreWrites(devices=(FAILING,))) == 4, "row, facets, finding, tag"
    seen = replace(FAILING, last_seen=9.0, accepted=2)
    assert _written(memory, StoreWrites(seen=(seen,))) == 1
    assert _written(memory, StoreWrites(reports=(StoredReport(replace(seen, accepted=3), b"{}"),))) == 1
    repeated = replace(seen, rules={"p/r": RuleState(RuleResult.FAIL, 1.0, 2, "it still does")}, counter=4)
    assert _written(memory, StoreWrites(devices=(repeated,))) == 1
    online = replace(repeated, online=True)
    assert _written(memory, StoreWrites(devices=(online,))) == 2, "row, facets"
    assert _written(memory, StoreWrites(devices=(replace(online, rules={}),))) == 3, "row, facets, no finding"


def test_what_a_removed_device_left_for_lists_goes_with_it(memory: sqlite3.Connection) -> None:
    _written(memory, StoreWrites(devices=(replace(FAILING, device_id="gone"),)))
    memory.execute("DELETE FROM devices WHERE device_id = 'gone'")
    for table in ("device_facets", "device_findings", "device_tags"):
        found = memory.execute(f"SELECT count(*) FROM {table} WHERE device_id = 'gone'").fetchone()
        assert found == (0,), table
