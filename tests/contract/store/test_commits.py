import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from controller.adapters.sql.statements import MAX_DEAD_TEXT
from controller.adapters.sql.store import SqlStore
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import ContainmentCase, Device
from controller.domain.effects import AuditEntry, CommandRecord, EndIsolation
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import StoreError
from controller.ports.store import DeadLetter, StoredReport, StoreWrites
from tests.contract.store.conftest import StorePlace
from tests.support.fleet_devices import stored_devices
from tests.support.store import QUICK


def _report(device_id: str, body: bytes, **told: Any) -> StoredReport:
    return StoredReport(Device(device_id, 1.0, 1.0, **told), body)


def _letter(device_id: str, number: int = 0) -> DeadLetter:
    return DeadLetter(float(number), device_id, "t" * 5000, "schema", "d" * 5000, 5000, b"a" * 5000)


def _command(command_id: str, state: str) -> CommandRecord:
    return CommandRecord(command_id, "d", "rescan", (), state, "", (), "op", "", False, 1.0, 2.0, 3.0)


async def test_contact_changes_nothing_but_its_values(store: SqlStore) -> None:
    both = (Device("a", 1.0, 1.0, agent="x"), Device("b", 1.0, 1.0, stale=True, agent="x"))
    await store.commit(StoreWrites(devices=both))
    told: dict[str, Any] = {"report_seq": 7, "reported_at": 8.0, "accepted": 2, "digest": "y", "agent": "x"}
    await store.commit(StoreWrites(seen=(Device("a", 1.0, 9.0, counter=5, **told), Device("nobody", 1.0, 9.0))))
    # An order that changes nothing of a silent device leaves it stale.
    await store.commit(StoreWrites(seen=(Device("b", 1.0, 1.0, stale=True, agent="x"),)))
    assert await stored_devices(store) == [Device("a", 1.0, 9.0, **told), Device("b", 1.0, 1.0, stale=True, agent="x")]


async def test_a_report_that_came_after_the_state_is_what_the_device_said_last(store: SqlStore) -> None:
    told: dict[str, Any] = {
        "report_seq": 8,
        "reported_at": 9.0,
        "accepted": 3,
        "digest": "z",
        "boot_id": "b",
        "satisfied": 4,
    }
    before = Device("a", 1.0, 5.0, stale=True, counter=2, report_seq=7, accepted=2, digest="y")
    await store.commit(StoreWrites(devices=(before,), reports=(_report("a", b"{}", **told),)))
    assert await stored_devices(store) == [Device("a", 1.0, 9.0, counter=2, **told)]
    later = Device("a", 1.0, 10.0, counter=3, **{**told, "satisfied": 5})
    await store.commit(StoreWrites(devices=(later,)))
    assert await stored_devices(store) == [later]


async def test_the_last_state_and_report_of_a_device_win(store: SqlStore) -> None:
    await store.commit(
        StoreWrites(devices=(Device("a", 1.0, 1.0), Device("a", 1.0, 2.0)), reports=(_report("a", b"{}"),))
    )
    await store.commit(StoreWrites(devices=(Device("a", 1.0, 3.0, digest="y"),), reports=(_report("a", b'{"b":1}'),)))
    assert await stored_devices(store) == [Device("a", 1.0, 3.0, digest="y")]
    assert await store.report("a") == b'{"b":1}'
    assert await store.report("b") is None


async def test_an_effect_asked_for_twice_is_one_and_gone_when_done(store: SqlStore) -> None:
    first, second = EndIsolation("e1", "d", "c"), EndIsolation("e2", "d", "c")
    await store.commit(StoreWrites(effects=(first, second)))
    await store.commit(StoreWrites(effects=(first,)))
    assert await store.effects() == [first, second]
    await store.commit(StoreWrites(effects=(EndIsolation("e3", "d", "c"),), done=("e1", "e3", "unknown")))
    assert await store.effects() == [second]


async def test_a_command_keeps_its_place_in_the_list_as_it_goes(store: SqlStore) -> None:
    await store.commit(StoreWrites(commands=(_command("c1", "scheduled"), _command("c2", "scheduled"))))
    await store.commit(StoreWrites(commands=(_command("c1", "succeeded"),)))
    assert await store.commands() == [_command("c2", "scheduled"), _command("c1", "succeeded")]
    assert await store.commands(state="succeeded") == [_command("c1", "succeeded")]


async def test_a_dead_letter_is_cut_to_what_is_kept(store: SqlStore) -> None:
    await store.commit(StoreWrites(dead=(_letter("a"),)))
    (found,) = await store.dead_letters()
    assert (found.payload, found.size) == (b"a" * 2048, 5000)
    assert len(found.topic) == len(found.detail) == MAX_DEAD_TEXT


async def test_dead_letters_make_room_for_newer_ones(place: StorePlace) -> None:
    async with place.opened(replace(QUICK, max_dead_letters=5, max_dead_letters_per_device=3)) as store:
        await _make_room(store)


async def _make_room(store: SqlStore) -> None:
    for number in range(4):
        await store.commit(StoreWrites(dead=(_letter("a", number),)))
    assert [one.at for one in await store.dead_letters()] == [3.0, 2.0, 1.0]
    await store.commit(StoreWrites(dead=tuple(_letter("b", number) for number in range(10, 13))))
    assert [one.at for one in await store.dead_letters()] == [12.0, 11.0, 10.0, 3.0, 2.0]


async def test_a_line_that_is_not_json_is_refused_before_anything_is_written(store: SqlStore) -> None:
    line = AuditEntry(AuditKind.DEVICE_ONLINE, "d", "actor", detail={"what": object()})
    with pytest.raises(StoreError, match="not JSON"):
        await store.commit(StoreWrites(devices=(Device("a", 1.0, 1.0),), audit=((1.0, line),)))
    assert await stored_devices(store) == []


async def test_commits_that_are_written_together_end_as_if_one_came_after_the_other(store: SqlStore) -> None:
    told: dict[str, Any] = {"report_seq": 2, "reported_at": 4.0, "accepted": 1}
    first, again = EndIsolation("e1", "d", "c"), EndIsolation("e1", "d", "c2")
    letters = [StoreWrites(dead=(_letter("d", number),)) for number in range(2)]
    group = (
        StoreWrites(devices=(Device("b", 1.0, 1.0), Device("a", 1.0, 1.0)), effects=(first,)),
        StoreWrites(seen=(Device("a", 1.0, 2.0),), done=("e1",), commands=(_command("c1", "scheduled"),)),
        StoreWrites(reports=(_report("b", b"{}", **told),), effects=(again,)),
        StoreWrites(reports=(_report("a", b"1", **told),), seen=(Device("b", 1.0, 3.0, **told),), done=("nothing",)),
        StoreWrites(devices=(Device("c", 1.0, 1.0), Device("c", 1.0, 2.0)), commands=(_command("c1", "succeeded"),)),
        StoreWrites(seen=(Device("c", 1.0, 5.0),)),
        *letters,
    )
    await asyncio.gather(*(store.commit(writes) for writes in group))
    assert await stored_devices(store) == [
        Device("a", 1.0, 4.0, **told),
        Device("b", 1.0, 3.0, **told),
        Device("c", 1.0, 5.0),
    ]
    assert await store.effects() == [again]
    assert await store.commands() == [_command("c1", "succeeded")]
    assert [one.at for one in await store.dead_letters()] == [1.0, 0.0]


async def test_one_that_cannot_be_kept_fails_alone_and_leaves_no_hole_in_the_record(store: SqlStore) -> None:
    def writes(number: int, device: Device) -> StoreWrites:
        return StoreWrites(devices=(device,), audit=((1.0, AuditEntry(AuditKind.DEVICE_ONLINE, f"d{number}", "t")),))

    bad = replace(Device("b", 1.0, 1.0), agent="\ud800")  # cannot be stored as UTF-8
    waiting = [store.commit(writes(n, bad if n == 1 else Device(f"d{n}", 1.0, 1.0))) for n in range(4)]
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(one, StoreError) for one in found] == [False, True, False, False]
    assert [one.entry.device_id for one in await store.audit(newest_first=False)] == ["d0", "d2", "d3"]
    assert (await store.check_audit()).flaws == ()


@pytest.mark.parametrize("text", ["NaN", "Infinity", "\ud800", "\0", "\U0001f680 ' \" \\ ? $1 %s"])
async def test_every_text_and_infinity_comes_back_as_it_was(store: SqlStore, text: str) -> None:
    case = ContainmentCase("c", ContainmentLevel.RESTRICTED, (), "cordon", text, 1.0, 1.0, hold_until=math.inf)
    device = Device("d", 1.0, 2.0, tags=(text,), case=case, online=None)
    entry = AuditEntry(AuditKind.DEVICE_ONLINE, "d", "t", detail={"text": text, "big": 2**70})
    await store.commit(StoreWrites(devices=(device,), audit=((1.5, entry),)))
    assert await stored_devices(store) == [device]
    assert [one.entry for one in await store.audit()] == [entry]
    assert (await store.check_audit()).is_intact
