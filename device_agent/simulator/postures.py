"""Made-up postures and how they change: values in, values out.

A posture file is a JSON list of section objects (`os`, `updates`, `openssl`, `sockets`, `services`, `firewall`, as on
the wire); device number n starts with entry n modulo the length of the list.
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
    """The posture has nothing of that name to change."""


class PostureEdit(BaseModel):
    """A change to a posture; several keys are applied in this order."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    open_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    proto: str = "tcp"
    address: str = "0.0.0.0"  # noqa: S104 - what a made-up socket says of itself, nothing is bound
    process: str = ""
    close_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    openssl: str | None = None
    """Version of the distribution's package, such as `3.0.11-1~deb12u1`."""
    sections: dict[str, dict[str, Any]] = {}
    """Fields to replace, section by section."""


def load(path: Path | None) -> list[Posture]:
    """The postures of a file; without one, a healthy Debian 12 device.

    Raises:
        SettingsError: the file cannot be read or is not a list of sections.
    """
    name = str(path) if path else "healthy.json"
    try:
        if path is None:
            text = resources.files("device_agent.simulator").joinpath("healthy.json").read_text()
        elif path.stat().st_size > _MAX_FILE_BYTES:
            raise SettingsError(f"{name}: larger than {_MAX_FILE_BYTES} bytes")
        else:
            text = path.read_text()
        _TEMPLATES.validate_json(text)
        postures: list[Posture] = json.loads(text)
    except OSError as e:
        raise SettingsError(f"{name}: {e.strerror}") from e
    except ValidationError as e:
        first = e.errors()[0]
        raise SettingsError(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e
    return postures


def edited(posture: Mapping[str, Any], edit: PostureEdit) -> Posture:
    """The posture after `edit`; the given one stays as it is.

    Raises:
        ValidationError: the result is no posture that the wire would carry.
    """
    after = copy.deepcopy(dict(posture))
    for name, fields in edit.sections.items():
        after[name] = {**after.get(name, {}), **fields}
    if edit.open_port is not None:
        process = edit.process or _usual_process(edit.open_port)
        _sockets(after).append(
            {"proto": edit.proto, "address": edit.address, "port": edit.open_port, "process": process}
        )
        _units(after).append({"name": f"{process}.service", "enabled": True, "active": True})
    if edit.close_port is not None:
        after["sockets"]["listening"] = [s for s in _sockets(after) if s["port"] != edit.close_port]
    if edit.openssl is not None:
        set_openssl(after, edit.openssl)
    _in_order(after)
    ReportSections.model_validate(after)
    return after


def disable_service(posture: Mapping[str, Any], name: str) -> tuple[Posture, dict[str, str]]:
    """What `service.disable` does to a posture: its units are off, its sockets closed.

    Raises:
        PostureItemNotFoundError: neither a unit nor a process has that name.
    """
    after = copy.deepcopy(dict(posture))
    units = [unit for unit in _units(after) if bare(unit["name"]) == bare(name)]
    sockets = [socket for socket in _sockets(after) if socket["process"] == bare(name)]
    if not units and not sockets:
        raise PostureItemNotFoundError(f"no service {name}")
    was = [f"{'enabled' if u['enabled'] else 'disabled'}, {'active' if u['active'] else 'inactive'}" for u in units]
    # A service that is neither enabled nor running is not in a report.
    after["services"]["units"] = [unit for unit in _units(after) if unit not in units]
    after["sockets"]["listening"] = [socket for socket in _sockets(after) if socket not in sockets]
    return after, {"was": was[0] if was else "running", "is": "disabled, inactive"}


def upgrade_package(posture: Mapping[str, Any], name: str, newest: Mapping[str, Any]) -> tuple[Posture, dict[str, str]]:
    """What `package.upgrade` does to a posture; `newest` is a posture with the versions that an upgrade installs.

    Raises:
        PostureItemNotFoundError: the posture knows nothing of that package.
    """
    after = copy.deepcopy(dict(posture))
    updates = after.get("updates", {})
    pending = [package for package in updates.get("packages", []) if package["name"] == name]
    if pending:
        updates["packages"] = [package for package in updates["packages"] if package["name"] != name]
        updates["security_pending"] = max(0, updates["security_pending"] - len(pending))
    package = after.get("openssl", {}).get("package")
    if package is not None and package["name"] == name:
        was = package["version"]
        set_openssl(after, newest["openssl"]["package"]["version"])
        return after, {"was": was, "is": after["openssl"]["package"]["version"]}
    if not pending:
        raise PostureItemNotFoundError(f"package {name} is not installed")
    return after, {"was": pending[0].get("installed", ""), "is": pending[0]["candidate"]}


def set_openssl(posture: Posture, package_version: str) -> None:
    """Put another OpenSSL package, and the upstream version in its name, into a posture."""
    package = {**posture["openssl"].get("package", {"name": "openssl", "scheme": "deb"}), "version": package_version}
    upstream = package_version.split(":", 1)[-1].split("-", 1)[0]
    posture["openssl"] = {"state": "ok", "version": upstream, "package": package}


def bare(name: str) -> str:
    """A service's name without what kind of unit it is."""
    return name.removeprefix("inetd:").removesuffix(".service").removesuffix(".socket")


def _usual_process(port: int) -> str:
    return {21: "ftpd", 23: "telnetd", 69: "tftpd", 513: "rlogind", 514: "rshd"}.get(port, f"service-{port}")


def _sockets(posture: Posture) -> list[dict[str, Any]]:
    sockets: list[dict[str, Any]] = posture.setdefault("sockets", {"state": "ok"}).setdefault("listening", [])
    return sockets


def _units(posture: Posture) -> list[dict[str, Any]]:
    units: list[dict[str, Any]] = posture.setdefault("services", {"state": "ok"}).setdefault("units", [])
    return units


def _in_order(posture: Posture) -> None:
    _sockets(posture).sort(key=lambda socket: (socket["proto"], socket["port"], socket["address"]))
    _units(posture).sort(key=lambda unit: unit["name"])
