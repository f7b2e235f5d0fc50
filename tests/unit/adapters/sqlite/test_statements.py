import sqlite3
from typing import Any

import pytest

from controller.adapters.sql import queries
from controller.adapters.sql.dead_letters import DeadLetterIndex
from controller.adapters.sql.statements import MAX_DEAD_TEXT
from controller.adapters.sqlite import reader
from controller.adapters.sqlite.statements import work_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, CommandRecord, EndIsolation
from controller.ports.errors import StoreError
from controller.ports.store import DeadLetter, StoredReport, StoreWrites


@pytest.fixture(autouse=True)
def empty(memory: sqlite3.Connection) -> None:
    for table in ("devices", "reports", "outbox", "commands", "audit", "dead_letters"):
        memory.execute(f"DELETE FROM {table}")


def _keep(connection: sqlite3.Connection, writes: StoreWrites, book: DeadLetterIndex | None = None) -> None:
    book = book or DeadLetterIndex((), 1, most=10, most_per_device=10)
    work_of(writes, book, payload_bytes=4).run(connection)


def _report(device_id: str, body: bytes, **told: Any) -> StoredReport:
    return StoredReport(Device(device_id, 1.0, 1.0, **told), body)


def _letter(device_id: str, number: int = 0) -> DeadLetter:
    return DeadLetter(float(number), device_id, "t" * 5000, "schema", "d" * 5000, 6, b"abcdef")


def _command(command_id: str, state: str) -> CommandRecord:
    return CommandRecord(command_id, "d", "rescan", (), state, "", (), "op", "", False, 1.0, 2.0, 3.0)


def test_contact_changes_nothing_but_its_values(memory: sqlite3.Connection) -> None:
    _keep(memory, StoreWrites(devices=(Device("a", 1.0, 1.0, agent="x"), Device("b", 1.0, 1.0, stale=True, agent="x"))))
    told: dict[str, Any] = {"report_seq": 7, "reported_at": 8.0, "accepted": 2, "digest": "y", "agent": "x"}
    _keep(memory, StoreWrites(seen=(Device("a", 1.0, 9.0, counter=5, **told), Device("nobody", 1.0, 9.0))))
    # An order that changes nothing of a silent device leaves it stale.
    _keep(memory, StoreWrites(seen=(Device("b", 1.0, 1.0, stale=True, agent="x"),)))
    assert reader.devices(memory) == [
        Device("a", 1.0, 9.0, **told),
        Device("b", 1.0, 1.0, stale=True, agent="x"),
    ]


def test_a_report_that_came_after_the_state_is_what_the_device_said_last(memory: sqlite3.Connection) -> None:
    told: dict[str, Any] = {
        "report_seq": 8,
        "reported_at": 9.0,
        "accepted": 3,
        "digest": "z",
        "boot_id": "b",
        "satisfied": 4,
    }
    before = Device("a", 1.0, 5.0, stale=True, counter=2, report_seq=7, accepted=2, digest="y")
    _keep(memory, StoreWrites(devices=(before,), reports=(_report("a", b"{}", **told),)))
    assert reader.devices(memory) == [Device("a", 1.0, 9.0, counter=2, **told)]
    later = Device("a", 1.0, 10.0, counter=3, **{**told, "satisfied": 5})
    _keep(memory, StoreWrites(devices=(later,)))
    assert reader.devices(memory) == [later]


def test_the_last_state_and_report_of_a_device_win(memory: sqlite3.Connection) -> None:
    _keep(memory, StoreWrites(devices=(Device("a", 1.0, 1.0), Device("a", 1.0, 2.0)), reports=(_report("a", b"{}"),)))
    _keep(memory, StoreWrites(devices=(Device("a", 1.0, 3.0, digest="y"),), reports=(_report("a", b'{"b":1}'),)))
    assert reader.devices(memory) == [Device("a", 1.0, 3.0, digest="y")]
    assert queries.report(memory, "a") == b'{"b":1}'
    assert queries.report(memory, "b") is None


def test_an_effect_asked_for_twice_is_one_and_gone_when_done(memory: sqlite3.Connection) -> None:
    first, second = EndIsolation("e1", "d", "c"), EndIsolation("e2", "d", "c")
    _keep(memory, StoreWrites(effects=(first, second)))
    _keep(memory, StoreWrites(effects=(first,)))
    assert queries.effects(memory) == [first, second]
    _keep(memory, StoreWrites(effects=(EndIsolation("e3", "d", "c"),), done=("e1", "e3", "unknown")))
    assert queries.effects(memory) == [second]


def test_a_command_keeps_its_place_in_the_list_as_it_goes(memory: sqlite3.Connection) -> None:
    _keep(memory, StoreWrites(commands=(_command("c1", "scheduled"), _command("c2", "scheduled"))))
    _keep(memory, StoreWrites(commands=(_command("c1", "succeeded"),)))
    assert queries.commands(memory, {}, 10) == [_command("c2", "scheduled"), _command("c1", "succeeded")]
    assert queries.commands(memory, {"state": "succeeded"}, 10) == [_command("c1", "succeeded")]


def test_a_dead_letter_is_cut_to_what_is_kept(memory: sqlite3.Connection) -> None:
    _keep(memory, StoreWrites(dead=(_letter("a"),)))
    (found,) = queries.dead_letters(memory, {}, 10)
    assert (found.payload, found.size) == (b"abcd", 6)
    assert len(found.topic) == len(found.detail) == MAX_DEAD_TEXT


def test_dead_letters_make_room_for_newer_ones(memory: sqlite3.Connection) -> None:
    book = DeadLetterIndex((), 1, most=5, most_per_device=3)
    for number in range(4):
        _keep(memory, StoreWrites(dead=(_letter("a", number),)), book)
    assert [one.at for one in queries.dead_letters(memory, {}, 10)] == [3.0, 2.0, 1.0]
    _keep(memory, StoreWrites(dead=tuple(_letter("b", number) for number in range(10, 13))), book)
    assert [one.at for one in queries.dead_letters(memory, {}, 10)] == [12.0, 11.0, 10.0, 3.0, 2.0]


def test_how_much_it_is_grows_with_rows_and_bytes() -> None:
    book = DeadLetterIndex((), 1, most=1, most_per_device=1)
    small = work_of(StoreWrites(seen=(Device("a", 1.0, 1.0),)), book, 0)
    large = work_of(StoreWrites(reports=(_report("a", b"x" * 100_000), _report("b", b""))), book, 0)
    assert (small.rows, large.rows) == (1, 2)
    assert small.size < 200
    assert large.size > 100_000


def test_a_line_that_is_not_json_is_refused_before_anything_is_written() -> None:
    line = AuditEntry(AuditKind.DEVICE_ONLINE, "d", "actor", detail={"what": object()})
    with pytest.raises(StoreError, match="not JSON"):
        work_of(StoreWrites(audit=((1.0, line),)), DeadLetterIndex((), 1, most=1, most_per_device=1), 0)
