"""Settings are read from a file, with its paths relative to it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from controller.adapters.files import read_line
from controller.adapters.keys import load_signing_key
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


def test_secrets_come_from_elsewhere_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    monkeypatch.setenv("SIGNS_COMMANDS", pem)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    text = MINIMAL.replace('"emqx.key"', '"command:echo key:s3cret"').replace("keys/command.key", "env:SIGNS_COMMANDS")
    text = text.replace(
        '"]\n[emqx]', '"]\npassword_file = "file:words"\ncertificate = "c"\nkey = "credential:k"\n[emqx]'
    )
    settings = load_settings(_written(tmp_path, text))
    assert read_line(settings.emqx.key_file, "emqx.key_file") == "key:s3cret"
    assert load_signing_key(settings.commands.signing_key).public_key() == key.public_key()
    assert settings.mqtt.password_file == tmp_path / "words"
    assert settings.mqtt.key == tmp_path / "k"


def test_a_malformed_source_is_named_by_its_key(tmp_path: Path) -> None:
    for source, key in (("env:A B", "emqx.key_file"), ("command:pass 'x", "emqx.key_file")):
        with pytest.raises(SettingsError, match=rf"cordon.toml: {key}[^\n]*: (Value error, )?(env:NAME|command)"):
            load_settings(_written(tmp_path, MINIMAL.replace("emqx.key", source)))


def test_every_secret_setting_accepts_every_source() -> None:
    for table in _tables():
        for name, field in table.model_fields.items():
            declared = f"{field.annotation} {field.metadata}"
            if re.search(r"password|passphrase|secret(?!s)|token|key_file|(signing|retiring)_key", name):
                assert "OutsideSecret" in declared, f"{table.__name__}.{name}: use ConfigSecret"
            elif name == "key":
                assert "_key_file" in declared, f"{table.__name__}.{name}: use ConfigKeyFile"


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
