"""Settings are read from a file, with its paths relative to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from controller.ports.errors import SettingsError
from controller.service.settings.base import SettingsTable
from controller.service.settings.settings import Settings, load_settings

MINIMAL = """
[mqtt]
servers = ["mqtt://127.0.0.1:1883"]
[emqx]
api = ["http://127.0.0.1:18083"]
key_file = "emqx.key"
audit = ["broker.yaml", "/usr/share/broker.yaml"]
[store]
path = "/var/lib/cordon.db"
[policy]
paths = ["policies"]
[commands]
signing_key = "keys/command.key"
"""


def _written(folder: Path, text: str) -> Path:
    path = folder / "cordon.toml"
    path.write_text(text)
    path.chmod(0o640)
    return path


def _tables(table: type[SettingsTable] = Settings) -> Iterator[type[SettingsTable]]:
    yield table
    for field in table.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, SettingsTable):
                yield from _tables(kind)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load_settings(_written(tmp_path, MINIMAL))
    assert settings.emqx.key_file == tmp_path / "emqx.key"
    assert settings.emqx.audit == (tmp_path / "broker.yaml", Path("/usr/share/broker.yaml"))
    assert settings.store.path == Path("/var/lib/cordon.db")
    assert settings.policy.paths == (tmp_path / "policies",)
    assert settings.commands.signing_key == tmp_path / "keys" / "command.key"
    assert settings.commands.retiring_key is None


def test_every_path_of_the_file_is_resolved() -> None:
    for table in _tables():
        for name, field in table.model_fields.items():
            declared = f"{field.annotation} {field.metadata}"
            assert "Path" not in declared or "_resolved" in declared, f"{table.__name__}.{name}: use ConfigPath"


def test_errors_name_file_and_key(tmp_path: Path) -> None:
    path = _written(tmp_path, MINIMAL.replace("mqtt://", "ftp://") + "[limits]\nmax_devices = 0\nnothing = 1\n")
    with pytest.raises(SettingsError) as refused:
        load_settings(path)
    named = {line.split(": ")[1] for line in str(refused.value).splitlines()}
    assert {"mqtt.servers.0", "limits.max_devices", "limits.nothing"} <= named
