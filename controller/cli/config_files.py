"""Writes the files of a new installation; an existing file is never overwritten."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.cli.errors import CliError, ExitCode
from controller.ports.errors import SettingsError
from controller.service.settings.settings import Settings, load_settings

CONFIG: Final = "cordon.toml"
STARTER: Final = "starter"
_DIRECTORY_MODE: Final = 0o750
_SECRET_MODE: Final = 0o600
_CONFIG_MODE: Final = 0o640
_POLICY_MODE: Final = 0o644  # the service may run as another user than `cordon init`


@dataclass(frozen=True, slots=True)
class InitAnswers:
    """The options of `cordon init`; paths are absolute."""

    directory: Path
    store: Path
    mqtt: tuple[str, ...]
    emqx: tuple[str, ...]
    listen: str
    client_id: str
    mqtt_ca: Path | None = None
    mqtt_certificate: Path | None = None
    mqtt_key: Path | None = None
    mqtt_user: str | None = None
    mqtt_password_file: str | None = None
    emqx_ca: Path | None = None


def config_text(answers: InitAnswers) -> str:
    """Returns the content of cordon.toml."""
    mqtt: dict[str, object] = {"servers": answers.mqtt, "client_id": answers.client_id}
    optional = {
        "ca": answers.mqtt_ca,
        "certificate": answers.mqtt_certificate,
        "key": answers.mqtt_key,
        "username": answers.mqtt_user,
        "password_file": answers.mqtt_password_file,
    }
    mqtt |= {key: value for key, value in optional.items() if value is not None}
    emqx: dict[str, object] = {"api": answers.emqx, "key_file": "emqx.key"}
    if answers.emqx_ca is not None:
        emqx["ca"] = answers.emqx_ca
    sections: dict[str, dict[str, object]] = {
        "mqtt": mqtt,
        "emqx": emqx,
        "store": {"path": answers.store},
        "policy": {"paths": ("policies",)},
        "commands": {"signing_key": "command-signing.key"},
        "api": {"listen": answers.listen},
    }
    head = "# Cordon's controller. Relative paths are relative to this file.\n"
    return head + "".join(_section(name, values) for name, values in sections.items())


def _section(name: str, values: dict[str, object]) -> str:
    return f"\n[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in values.items())


def _value(value: object) -> str:
    # JSON's escapes are valid in TOML's basic strings.
    if isinstance(value, tuple):
        return json.dumps([str(item) for item in value])
    return json.dumps(str(value))


def make_directory(path: Path) -> None:
    """Creates a folder and its parents.

    Raises:
        CliError: the folder cannot be created.
    """
    try:
        path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as e:
        raise CliError(f"{path}: cannot be created: {e.strerror}", ExitCode.USAGE) from e


def write_new(path: Path, content: str, mode: int = _SECRET_MODE) -> None:
    """Writes a new file atomically.

    Raises:
        CliError: the file exists, or cannot be written.
    """
    from controller.app.offline import write_new_file

    try:
        write_new_file(path, content, mode)
    except OSError as e:
        raise CliError(f"{path}: cannot be written: {e.strerror}", ExitCode.USAGE) from e


def write_config(path: Path, text: str) -> Settings:
    """Validates a configuration, then writes it.

    Raises:
        CliError: the configuration is invalid, or cannot be written.
    """
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".draft")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        load_settings(Path(draft))
    except SettingsError as e:
        raise CliError(str(e).replace(draft, "these options"), ExitCode.USAGE) from e
    finally:
        Path(draft).unlink()
    write_new(path, text, _CONFIG_MODE)
    return load_settings(path)


def copy_starter(paths: Sequence[Path]) -> list[Path]:
    """Copies the starter pack to each policy path without policies; returns the files that were created."""
    from controller.packs import pack_path

    made = []
    for path in paths:
        is_file = path.suffix in (".yaml", ".yml")
        if path.is_file() or (path.is_dir() and any(file.suffix in (".yaml", ".yml") for file in path.iterdir())):
            continue
        target = path if is_file else path / f"{STARTER}.yaml"
        make_directory(target.parent)
        write_new(target, pack_path(STARTER).read_text(), _POLICY_MODE)
        made.append(target)
    return made
