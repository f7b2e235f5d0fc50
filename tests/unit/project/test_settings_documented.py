"""The reference of settings says what the models say: every key, every default, and nothing else."""

import json
import re
from typing import Any, Final, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from controller.service.settings.settings import Settings as ControllerSettings
from device_agent.settings import Settings as AgentSettings
from tests.support.project_tree import ROOT

_PAGE: Final = ROOT / "docs" / "configuration.md"
_ROW: Final = re.compile(r"^\| `(?P<key>[a-z_]+)` \| (?P<default>[^|]*) \| (?P<text>[^|]*) \|$", re.MULTILINE)
_UNITS: Final = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0))
_MODELS: Final[dict[str, type[BaseModel]]] = {"cordon.toml": ControllerSettings, "agent.toml": AgentSettings}


def _documented(file: str) -> dict[str, str]:
    """`section.key` to its default as written, of the chapter about this file."""
    chapter = _PAGE.read_text().split(f"\n## `{file}`\n")[1].split("\n## ")[0]
    found: dict[str, str] = {}
    for part in re.split(r"^### ", chapter, flags=re.MULTILINE):
        heading = re.match(r"`\[([a-z.]+)\]`", part)
        prefix = f"{heading[1]}." if heading else ""
        for row in _ROW.finditer(part):
            assert row["text"].strip(), f"{prefix}{row['key']} is not explained"
            found[prefix + row["key"]] = row["default"].strip()
    return found


def _known(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    known: dict[str, str] = {}
    for name, field in model.model_fields.items():
        choices = get_args(field.annotation) if type(None) in get_args(field.annotation) else (field.annotation,)
        inner = next((one for one in choices if _is_table(one)), None)
        if inner is not None:
            known |= _known(inner, f"{prefix}{name}.")
        else:
            known[prefix + (field.alias or name)] = _written(
                field.get_default(call_default_factory=True), [type(one).__name__ for one in field.metadata]
            )
    return known


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _written(default: Any, checks: list[str]) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float) and "BeforeValidator" in checks:
        return f"`{_duration(default)}`"
    if isinstance(default, int | float):
        return f"`{default}`"
    if isinstance(default, tuple) and default:
        return f"`{json.dumps(default)}`"
    return "empty" if default in ((), {}) else f'`"{default}"`'


def _duration(seconds: float) -> str:
    """As people write it: a small number with the largest unit that fits."""
    unit, size = next((unit, size) for unit, size in _UNITS if seconds >= 2 * size and seconds % size == 0)
    return f'"{seconds / size:.0f}{unit}"'


@pytest.mark.parametrize("file", _MODELS)
def test_every_setting_is_in_the_reference_with_its_default(file: str) -> None:
    known = _known(_MODELS[file])
    assert len(known) > 10
    assert _documented(file) == known


def test_durations_read_as_people_write_them() -> None:
    assert [_duration(one) for one in (5.0, 60.0, 120.0, 7200.0, 172800.0)] == ['"5s"', '"60s"', '"2m"', '"2h"', '"2d"']
