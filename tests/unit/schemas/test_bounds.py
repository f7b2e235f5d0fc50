"""All input is bounded: a value above its limit or of another type is rejected."""

import copy
import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.base import MAX_COUNTER, MAX_NAME, MAX_TEXT, MAX_WORD, clean_text
from schemas.commands import MAX_DETAILS, MAX_PARAMS, Command, CommandResult, CommandState
from schemas.events import MAX_FIELDS, DeviceEvent, RejectReason, ReportReceipt, Status
from schemas.posture import REPORT, FullReport, digest_of
from schemas.sections.software import MAX_PACKAGES
from schemas.sections.system import MAX_SOCKETS, MAX_UNITS
from tests.unit.schemas import examples

MODELS: dict[str, tuple[TypeAdapter[Any], dict[str, Any]]] = {
    "full": (REPORT, examples.FULL),
    "beat": (REPORT, examples.HEARTBEAT),
    "receipt": (TypeAdapter(ReportReceipt), examples.RECEIPTS[0]),
    "command": (TypeAdapter(Command), examples.COMMAND),
    "result": (TypeAdapter(CommandResult), examples.RESULT),
    "status": (TypeAdapter(Status), examples.STATUS),
    "event": (TypeAdapter(DeviceEvent), examples.EVENT),
}
SOCKET = {"proto": "tcp", "address": "::", "port": 1}
UNIT = {"name": "a", "enabled": True, "active": True}
PACKAGE = {"name": "a", "candidate": "1"}


def changed(model: str, path: str, value: Any) -> str:
    """Returns the example of `model` as JSON, with the value at the dotted `path` replaced."""
    document = copy.deepcopy(MODELS[model][1])
    *parents, last = path.split(".")
    at: Any = document
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[last] = value
    return json.dumps(document)


def accepts(model: str, raw: str) -> bool:
    try:
        MODELS[model][0].validate_json(raw)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("model", "path", "good", "bad"),
    [
        ("full", "device_id", "a" * 64, "a" * 65),
        ("full", "boot_id", "b" * 64, "b" * 65),
        ("full", "agent", "b" * 64, "b" * 65),
        ("full", "seq", MAX_COUNTER, MAX_COUNTER + 1),
        ("full", "sections.os.id", "a" * MAX_WORD, "a" * (MAX_WORD + 1)),
        ("full", "sections.os.kernel", "k" * MAX_TEXT, "k" * (MAX_TEXT + 1)),
        ("full", "sections.openssl.package.name", "n" * MAX_NAME, "n" * (MAX_NAME + 1)),
        ("full", "sections.updates.security_pending", 100_000, 100_001),
        ("full", "sections.updates.oldest_security_days", 36_500, 36_501),
        ("full", "sections.updates.packages", [PACKAGE] * MAX_PACKAGES, [PACKAGE] * (MAX_PACKAGES + 1)),
        ("full", "sections.sockets.listening", [SOCKET] * MAX_SOCKETS, [SOCKET] * (MAX_SOCKETS + 1)),
        ("full", "sections.sockets.listening.0.port", 65_535, 65_536),
        ("full", "sections.sockets.listening.0.port", 1, 0),
        ("full", "sections.services.units", [UNIT] * MAX_UNITS, [UNIT] * (MAX_UNITS + 1)),
        ("full", "sections.firewall.reason", "r", ""),
        ("command", "counter", MAX_COUNTER, MAX_COUNTER + 1),
        ("command", "command_id", "c" * 64, "c" * 65),
        ("command", "params", {f"p{n}": n for n in range(MAX_PARAMS)}, {f"p{n}": n for n in range(MAX_PARAMS + 1)}),
        ("command", "params.name", "v" * MAX_NAME, "v" * (MAX_NAME + 1)),
        ("result", "reason", "r" * MAX_TEXT, "r" * (MAX_TEXT + 1)),
        ("result", "detail", {f"d{n}": "" for n in range(MAX_DETAILS)}, {f"d{n}": "" for n in range(MAX_DETAILS + 1)}),
        ("event", "count", MAX_COUNTER, MAX_COUNTER + 1),
        ("event", "count", 1, 0),
        ("event", "kind", "k" * MAX_WORD, "k" * (MAX_WORD + 1)),
        ("event", "detail", {f"d{n}": "" for n in range(MAX_FIELDS)}, {f"d{n}": "" for n in range(MAX_FIELDS + 1)}),
        ("status", "boot_id", "b" * 64, "b" * 65),
        ("receipt", "detail", "d" * MAX_TEXT, "d" * (MAX_TEXT + 1)),
    ],
)
def test_the_limit_is_accepted_and_the_next_value_rejected(model: str, path: str, good: Any, bad: Any) -> None:
    assert accepts(model, changed(model, path, good))
    assert not accepts(model, changed(model, path, bad))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("full", "device_id"),
        ("full", "boot_id"),
        ("full", "sections.os.version"),
        ("full", "sections.sockets.listening.0.process"),
        ("full", "sections.firewall.reason"),
        ("result", "reason"),
        ("result", "detail.was"),
        ("event", "summary"),
        ("event", "kind"),
        ("event", "detail.user"),
        ("status", "boot_id"),
    ],
)
@pytest.mark.parametrize("character", ["\x00", "\n", "\r", "\x1b", "\x7f", "\x9b"])
def test_control_characters_are_rejected(model: str, path: str, character: str) -> None:
    assert not accepts(model, changed(model, path, f"a{character}b"))
    assert not accepts(model, changed(model, path, f"a{character}"))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1.5", "true", '"5"', "1e400", "9" * 400, "null", "[1]"])
def test_a_sequence_number_is_a_whole_number_that_every_json_parser_represents_exactly(value: str) -> None:
    raw = json.dumps(examples.FULL).replace('"seq": 412', f'"seq": {value}')
    assert value in raw
    assert not accepts("full", raw)


def test_nan_and_infinity_are_rejected() -> None:
    for number in ("NaN", "Infinity", "-Infinity"):
        raw = json.dumps(examples.COMMAND).replace('"telnetd"', number)
        assert number in raw
        assert not accepts("command", raw)


@pytest.mark.parametrize(
    "raw", ["[" * 100_000, '{"a":' * 100_000, '{"kind":"full","sections":' + "[" * 50_000 + "]" * 50_000]
)
def test_deep_nesting_is_rejected(raw: str) -> None:
    assert not accepts("full", raw)


def test_deep_nesting_in_an_unknown_field_is_rejected() -> None:
    deep: str = json.dumps(examples.HEARTBEAT)[:-1] + ', "new": ' + "[" * 50_000 + "]" * 50_000 + "}"
    assert not accepts("beat", deep)


@pytest.mark.parametrize(
    ("model", "path", "bad"),
    [
        ("full", "v", 2),
        ("full", "kind", "other"),
        ("full", "device_id", ""),
        ("full", "device_id", "a/b"),
        ("full", "device_id", "a b"),
        ("full", "device_id", "."),
        ("full", "device_id", ".."),
        ("full", "device_id", "ä"),
        ("full", "digest", "sha256:xyz"),
        ("full", "digest", "md5:" + "a" * 64),
        ("full", "digest", examples.DIGEST + "\n"),
        ("full", "sent_at", "2026-11-23T10:00:00"),
        ("full", "sent_at", "yesterday"),
        ("full", "sections.os.state", "fine"),
        ("full", "sections.sockets.listening.0.proto", "sctp"),
        ("full", "sections.openssl.package.scheme", "msi"),
        ("command", "action", "Service.disable"),
        ("command", "action", "rm -rf /"),
        ("command", "command_id", "a b"),
        ("command", "params", {"Name": "x"}),
        ("command", "params", {"name": [1]}),
        ("command", "params", {"name": 1.5}),
        ("status", "state", "away"),
        ("event", "severity", "fatal"),
        ("receipt", "verdict", "maybe"),
    ],
)
def test_values_outside_the_contract_are_rejected(model: str, path: str, bad: Any) -> None:
    assert not accepts(model, changed(model, path, bad))


def test_unknown_fields_are_ignored_or_for_commands_and_receipts_rejected() -> None:
    for model in ("full", "beat", "result", "status", "event"):
        assert accepts(model, changed(model, "new", 1)), model
    for model in ("command", "receipt"):
        assert not accepts(model, changed(model, "new", 1)), model


def test_unknown_states_and_reasons_of_a_newer_peer_have_a_substitute() -> None:
    result = CommandResult.model_validate_json(changed("result", "state", "paused"))
    assert result.state is CommandState.UNKNOWN
    assert not result.state.is_end
    receipt = ReportReceipt.model_validate_json(changed("receipt", "reason", "moon_phase"))
    assert receipt.reason is RejectReason.OTHER
    assert not accepts("result", changed("result", "state", 5))
    assert not accepts("receipt", changed("receipt", "reason", 5))


def test_a_command_expires_at_its_time() -> None:
    command = Command.model_validate(examples.COMMAND)
    assert command.is_expired(command.expires_at)
    assert not command.is_expired(command.issued_at)


def test_a_missing_section_is_none() -> None:
    document = copy.deepcopy(examples.FULL)
    del document["sections"]["firewall"]
    report = REPORT.validate_python(document)
    assert isinstance(report, FullReport)
    assert report.sections.firewall is None


def test_clean_text_replaces_control_characters_and_cuts() -> None:
    assert clean_text("a\x1b[31mb\nc") == "a [31mb c"
    assert clean_text("x" * 5000) == "x" * MAX_TEXT
    assert clean_text("abc", limit=2) == "ab"


def test_a_digest_depends_on_the_values_and_not_on_the_order_of_keys() -> None:
    sections = {"os": {"id": "debian", "version": "12"}, "x": [1, 2]}
    reordered = {"x": [1, 2], "os": {"version": "12", "id": "debian"}}
    assert digest_of(sections) == digest_of(reordered)
    assert digest_of(sections) != digest_of({**sections, "x": [2, 1]})
    assert digest_of({"ä": 1}).startswith("sha256:")
