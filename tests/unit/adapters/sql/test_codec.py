import json
import math
import sqlite3
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given

from controller.adapters.sql import codec, queries
from controller.adapters.sqlite import reader
from controller.adapters.sqlite.dead_letters import DeadLetterIndex
from controller.adapters.sqlite.statements import work_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import REPORT_FIELDS, ContainmentCase, Device, RuleState
from controller.domain.effects import AuditEntry, CommandRecord, Effect, EndIsolation
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import StoreError
from controller.ports.store import StoreWrites
from tests.unit.adapters.sql import strategies

STATE = codec.DEVICE_COLUMNS.index("state")


def _row(device: Device, state: str) -> tuple[Any, ...]:
    """The row that is read: with another state, and without a stored report."""
    row = codec.device_row(device)
    return (*row[:STATE], state, *row[STATE + 1 :], *[None] * len(REPORT_FIELDS))


def _keep(connection: sqlite3.Connection, writes: StoreWrites) -> None:
    for table in ("devices", "outbox", "commands", "audit"):
        connection.execute(f"DELETE FROM {table}")
    work_of(writes, DeadLetterIndex((), 1, most=1, most_per_device=1), 0).run(connection)


@given(device=strategies.DEVICES)
def test_a_device_comes_back_as_it_was(memory: sqlite3.Connection, device: Device) -> None:
    _keep(memory, StoreWrites(devices=(device,)))
    assert [codec.device_from(row) for row in memory.execute(reader.DEVICES)] == [device]


@given(effect=strategies.EFFECTS)
def test_an_effect_comes_back_as_it_was(memory: sqlite3.Connection, effect: Effect) -> None:
    _keep(memory, StoreWrites(effects=(effect,)))
    assert queries.effects(memory) == [effect]


@given(command=strategies.COMMANDS)
def test_a_command_comes_back_as_it_was(memory: sqlite3.Connection, command: CommandRecord) -> None:
    _keep(memory, StoreWrites(commands=(command,)))
    assert queries.commands(memory, {"command_id": command.command_id}, 1) == [command]


@given(detail=strategies.DETAILS)
def test_the_detail_of_a_line_comes_back_as_it_was(memory: sqlite3.Connection, detail: dict[str, object]) -> None:
    entry = AuditEntry(AuditKind.DEVICE_ONLINE, "device", "actor", "case", detail, alert=True)
    _keep(memory, StoreWrites(audit=((1.5, entry),)))
    (found,) = queries.audit(memory, {}, alerts_only=True, after=None, limit=1, newest_first=True)
    assert (found.at, found.entry) == (1.5, entry)


@pytest.mark.parametrize("detail", [None, {}])
def test_an_empty_detail_stays_what_it_was(memory: sqlite3.Connection, detail: dict[str, object] | None) -> None:
    _keep(memory, StoreWrites(audit=((1.0, AuditEntry(AuditKind.DEVICE_ONLINE, "device", "actor", detail=detail)),)))
    (found,) = queries.audit(memory, {}, alerts_only=False, after=None, limit=1, newest_first=True)
    assert found.entry.detail == detail


@given(rules=strategies.ACCESS_RULES)
def test_access_rules_come_back_as_they_were(rules: AccessRules) -> None:
    assert codec.load_rules("device", codec.dump_rules(rules)) == rules


def test_every_durable_effect_can_be_kept() -> None:
    assert set(codec._EFFECTS) == {kind.__name__ for kind in get_args(Effect)}


def test_no_field_of_a_device_is_forgotten() -> None:
    rules = {"p/r": RuleState(RuleResult.FAIL, 1.0, 1)}
    state = json.loads(codec.device_row(Device("d", 1.0, 2.0, rules=rules))[STATE])
    columns = set(codec.DEVICE_COLUMNS) - {"level", "state"}  # derived from the case, and the rest itself
    assert set(state) | columns == {one.name for one in fields(Device)}
    assert not set(state) & columns


def test_the_state_is_json_for_other_tools_also_when_a_hold_never_ends() -> None:
    case = ContainmentCase("c", ContainmentLevel.RESTRICTED, (), "operator", "theft", 1.0, 1.0, hold_until=math.inf)
    state = codec.device_row(Device("d", 1.0, 2.0, case=case))[STATE]

    def constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(state, parse_constant=constant)["case"]["hold_until"] == "Infinity"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "\ud800", "NaN \udfff"])
def test_every_text_comes_back_as_it_was(text: str) -> None:
    case = ContainmentCase("c", ContainmentLevel.RESTRICTED, (), "cordon", text, 1.0, 1.0, hold_until=math.inf)
    device = Device("d", 1.0, 2.0, tags=(text,), case=case)
    assert codec.device_from(_row(device, codec.device_row(device)[STATE])) == device


def test_nan_in_a_device_is_refused() -> None:
    with pytest.raises(StoreError, match="not JSON: not a number"):
        codec.device_row(Device("d", 1.0, 2.0, refused_until=math.nan))


@pytest.mark.parametrize("value", [math.nan, object(), {1: object()}])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(StoreError, match="not JSON"):
        codec.dump(value)


def test_what_contains_itself_is_refused() -> None:
    ring: list[object] = []
    ring.append(ring)
    with pytest.raises(StoreError, match="not JSON"):
        codec.dump(ring)


def test_an_effect_of_a_newer_version_is_not_passed_over() -> None:
    with pytest.raises(StoreError, match=r"e1 .* unknown kind 'Vaporise'.*newer version"):
        codec.effect_from("e1", "Vaporise", "{}")


@pytest.mark.parametrize(
    "body",
    ["", "[]", "7", '{"device_id":"d"}', '{"effect_id":"e","device_id":"d","case_id":"c","more":1}'],
)
def test_an_effect_that_makes_no_sense_says_so(body: str) -> None:
    with pytest.raises(StoreError, match="cannot read effect e1: written by a newer version"):
        codec.effect_from("e1", EndIsolation.__name__, body)


def test_a_word_of_a_newer_version_in_a_device_says_so() -> None:
    case = ContainmentCase("c", ContainmentLevel.RESTRICTED, (), "cordon", "", 1.0, 1.0)
    device = Device("d", 1.0, 2.0, case=case)
    row = _row(device, codec.device_row(device)[STATE].replace('"restricted"', '"exiled"'))
    with pytest.raises(StoreError, match="cannot read device d: written by a newer version"):
        codec.device_from(row)


def test_a_field_that_an_older_version_did_not_have_takes_its_default() -> None:
    device = Device("d", 1.0, 2.0, counter=7)
    older = json.loads(codec.device_row(device)[STATE])
    del older["counter"]
    assert codec.device_from(_row(device, json.dumps(older))) == replace(device, counter=0)
