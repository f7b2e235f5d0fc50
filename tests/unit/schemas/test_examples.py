"""The published examples are accepted by the models and by the exported schemas."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, TypeAdapter

from schemas import export
from schemas.commands import Command, CommandResult
from schemas.events import DeviceEvent, ReportReceipt, Status
from schemas.posture import REPORT
from schemas.signing import Envelope
from tests.unit.schemas import examples

SCHEMAS = Path(export.__file__).parent
ENVELOPE = {
    "payloadType": "application/vnd.cordon.command.v1+json",
    "payload": "e30=",
    "signatures": [{"keyid": "abcd", "sig": "AAAA"}],
}
CASES: list[tuple[str, TypeAdapter[Any], dict[str, Any]]] = [
    ("posture", REPORT, examples.FULL),
    ("posture", REPORT, examples.DELTA),
    ("posture", REPORT, examples.HEARTBEAT),
    *(("receipt", TypeAdapter(ReportReceipt), receipt) for receipt in examples.RECEIPTS),
    ("command", TypeAdapter(Command), examples.COMMAND),
    ("result", TypeAdapter(CommandResult), examples.RESULT),
    ("status", TypeAdapter(Status), examples.STATUS),
    ("status", TypeAdapter(Status), examples.WILL),
    ("event", TypeAdapter(DeviceEvent), examples.EVENT),
    ("command-envelope", TypeAdapter(Envelope), ENVELOPE),
]


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / "json" / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize(("name", "model", "example"), CASES)
def test_an_example_and_its_serialised_model_are_accepted(
    name: str, model: TypeAdapter[Any], example: dict[str, Any]
) -> None:
    parsed = model.validate_json(json.dumps(example))
    written = json.loads(model.dump_json(parsed))
    assert {key: written[key] for key in example if key != "sections"} == {
        key: value for key, value in example.items() if key != "sections"
    }
    assert model.validate_python(parsed) == parsed
    assert model.validate_json(json.dumps(written)) == parsed
    for document in (example, written):
        assert list(validator(name).iter_errors(document)) == []


@pytest.mark.parametrize(("name", "model", "example"), CASES)
def test_exported_schema_and_model_require_the_same_fields(
    name: str, model: TypeAdapter[Any], example: dict[str, Any]
) -> None:
    for key in example:
        without = {other: value for other, value in example.items() if other != key}
        by_schema = not list(validator(name).iter_errors(without))
        try:
            model.validate_json(json.dumps(without))
            by_model = True
        except ValueError:
            by_model = False
        assert by_schema == by_model, key


@pytest.mark.parametrize(("name", "model", "example"), CASES)
def test_models_are_immutable(name: str, model: TypeAdapter[Any], example: dict[str, Any]) -> None:
    parsed = model.validate_json(json.dumps(example))
    assert isinstance(parsed, BaseModel)
    with pytest.raises(ValueError, match="frozen"):
        setattr(parsed, next(iter(type(parsed).model_fields)), 1)


def test_the_exported_files_are_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "schemas.export", "--check"],
        cwd=SCHEMAS.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_missing_export_is_detected_and_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "_HERE", tmp_path)
    assert export.main(["--check"]) == 1
    assert "asyncapi.yaml differs from the models" in capsys.readouterr().err
    assert export.main([]) == 0
    assert export.main(["--check"]) == 0
    (tmp_path / "json" / "event.schema.json").write_text("{}")
    assert export.main(["--check"]) == 1
    assert capsys.readouterr().err.startswith("schemas/json/event.schema.json")
