"""Simulated postures and their changes; pure except for `load`.

A posture file is a JSON list of section objects (`os`, `updates`, `openssl`, `sockets`, `services`, `firewall`, in the
wire format); device number n starts with entry n modulo the length of the list.
"""

import copy
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from device_agent.errors import SettingsError
from schemas.base import MAX_POSTURE_BYTES
from schemas.posture import ReportSections

_MAX_FILE_BYTES: Final = 256 * MAX_POSTURE_BYTES
_TEMPLATES: Final[TypeAdapter[list[ReportSections]]] = TypeAdapter(Annotated[list[ReportSections], Field(min_length=1)])

Posture = dict[str, Any]


class PostureItemNotFoundError(Exception):
    """The posture has no service or package of that name."""


class PostureEdit(BaseModel):
    """A change to a posture; several changes are applied in the order of the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    open_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    proto: str = "tcp"
    address: str = "0.0.0.0"  # noqa: S104 - of a simulated socket, nothing is bound
    process: str = ""
    close_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    openssl: str | None = None
    """Version of the distribution's package, such as `3.0.11-1~deb12u1`."""
    sections: dict[str, dict[str, Any]] = {}
    """Fields to replace, by section."""


def load(path: Path | None) -> list[Posture]:
    """Reads the postures of a file; without a path, returns that of a healthy Debian 12 device.

    Raises:
        SettingsError: the file cannot be read or is not a list of sections.
    """
    name = str(path) if path else "healthy.json"
    try:
        if path is None:
            text = resources.files("device_agent.simulator").joinpath("healthy.json").read_text("utf-8")
        elif path.stat().st_size > _MAX_FILE_BYTES:
            raise SettingsError(f"{name}: larger than {_MAX_FILE_BYTES} bytes")
        else:
            text = path.read_text("utf-8")
        _TEMPLATES.validate_json(text)
        postures: list[Posture] = json.loads(text)
    except OSError as e:
        raise SettingsError(f"{name}: {e.strerror}") from e
    except ValidationError as e:
        first = e.errors()[0]
        raise SettingsError(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e
    return postures


def apply_edit(posture: Mapping[str, Any], edit: PostureEdit) -> Posture:
    """Returns the posture after `edit`; does not change the argument.

    Raises:
        ValidationError: the result is not a valid posture.
    """
    after = copy.deepcopy(dict(posture))
    for name, fields in edit.sections.items():
        after[name] = {**after.get(name, {}), **fields}
    if edit.open_port is not None:
        process = edit.process or _default_process(edit.open_port)
        _sockets(after).append(
            {"proto": edit.proto, "address": edit.address, "port": edit.open_port, "process": process}
        )
        _units(after).append({"name": f"{process}.service", "enabled": True, "active": True})
    if edit.close_port is not None:
        after["sockets"]["listening"] = [s for s in _sockets(after) if s["port"] != edit.close_port]
    if edit.openssl is not None:
        set_openssl(after, edit.openssl)
    _sort(after)
    ReportSections.model_validate(after)
    return after


def disable_service(posture: Mapping[str, Any], name: str) -> tuple[Posture, dict[str, str]]:
    """Applies `service.disable`: removes the units and sockets of a service; returns the posture and the detail.

    Raises:
        PostureItemNotFoundError: no unit and no process has that name.
    """
    after = copy.deepcopy(dict(posture))
    units = [unit for unit in _units(after) if strip_unit_suffix(unit["name"]) == strip_unit_suffix(name)]
    sockets = [socket for socket in _sockets(after) if socket["process"] == strip_unit_suffix(name)]
    if not units and not sockets:
        raise PostureItemNotFoundError(f"no service {name}")
    states = [f"{'enabled' if u['enabled'] else 'disabled'}, {'active' if u['active'] else 'inactive'}" for u in units]
    # A report lists only services that are enabled or running.
    after["services"]["units"] = [unit for unit in _units(after) if unit not in units]
    after["sockets"]["listening"] = [socket for socket in _sockets(after) if socket not in sockets]
    return after, {"was": states[0] if states else "running", "is": "disabled, inactive"}


def upgrade_package(posture: Mapping[str, Any], name: str, newest: Mapping[str, Any]) -> tuple[Posture, dict[str, str]]:
    """Applies `package.upgrade` with the versions in the posture `newest`; returns the posture and the detail.

    Raises:
        PostureItemNotFoundError: the posture has no such package.
    """
    after = copy.deepcopy(dict(posture))
    updates = after.get("updates", {})
    pending = [package for package in updates.get("packages", []) if package["name"] == name]
    if pending:
        updates["packages"] = [package for package in updates["packages"] if package["name"] != name]
        updates["security_pending"] = max(0, updates["security_pending"] - len(pending))
    if name in updates.get("pending_names", []):
        updates["pending_names"] = [each for each in updates["pending_names"] if each != name]
        updates["pending"] = max(0, updates["pending"] - 1)
    package = after.get("openssl", {}).get("package")
    if package is not None and package["name"] == name:
        before = package["version"]
        set_openssl(after, newest["openssl"]["package"]["version"])
        return after, {"was": before, "is": after["openssl"]["package"]["version"]}
    if not pending:
        raise PostureItemNotFoundError(f"package {name} is not installed")
    return after, {"was": pending[0].get("installed", ""), "is": pending[0]["candidate"]}


def set_openssl(posture: Posture, package_version: str) -> None:
    """Sets the version of the OpenSSL package and the upstream version in it."""
    package = {**posture["openssl"].get("package", {"name": "openssl", "scheme": "deb"}), "version": package_version}
    upstream = package_version.split(":", 1)[-1].split("-", 1)[0]
    posture["openssl"] = {"state": "ok", "version": upstream, "package": package}


def strip_unit_suffix(name: str) -> str:
    """Returns the name of a service without the kind of its unit."""
    return name.removeprefix("inetd:").removesuffix(".service").removesuffix(".socket")


def _default_process(port: int) -> str:
    return {21: "ftpd", 23: "telnetd", 69: "tftpd", 513: "rlogind", 514: "rshd"}.get(port, f"service-{port}")


def _sockets(posture: Posture) -> list[dict[str, Any]]:
    sockets: list[dict[str, Any]] = posture.setdefault("sockets", {"state": "ok"}).setdefault("listening", [])
    return sockets


def _units(posture: Posture) -> list[dict[str, Any]]:
    units: list[dict[str, Any]] = posture.setdefault("services", {"state": "ok"}).setdefault("units", [])
    return units


def _sort(posture: Posture) -> None:
    _sockets(posture).sort(key=lambda socket: (socket["proto"], socket["port"], socket["address"]))
    _units(posture).sort(key=lambda unit: unit["name"])
