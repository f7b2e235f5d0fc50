"""systemd: the running service manager, or the unit files of a prepared folder or image."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from device_agent.host.execute import run
from device_agent.host.system import System

_SECONDS: Final = 120.0  # for a unit to stop
_QUIET: Final = ("--no-pager", "--no-ask-password")
OPENED: Final = frozenset({"enabled", "enabled-runtime"})
STOPPED: Final = frozenset({"inactive", "failed"})
_DEPENDENT_PROPERTIES: Final = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf")  # stop together with a unit
_MAX_DEPENDENTS: Final = 256
# By precedence, the highest first.
_UNIT_FOLDERS: Final = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


class ServiceManager(Protocol):
    """The service manager of a machine; every method raises ExecuteError where it refuses."""

    def show(self, unit: str, *properties: str) -> Mapping[str, str]:
        """Returns these properties of a unit, empty where they have no value."""
        ...

    def run_verb(self, verb: str, *units: str) -> None:
        """Runs `enable`, `disable`, `start`, `stop` or `restart` for units."""
        ...


class Systemd:
    """The running systemd, by `systemctl`."""

    def show(self, unit: str, *properties: str) -> Mapping[str, str]:
        argv = ["systemctl", *_QUIET, "show", f"--property={','.join(properties)}", "--", unit]
        fields = dict.fromkeys(properties, "")
        for line in run(argv, seconds=_SECONDS).stdout.splitlines():
            key, _, value = line.partition("=")
            fields[key] = value
        return fields

    def run_verb(self, verb: str, *units: str) -> None:
        run(["systemctl", *_QUIET, verb, "--", *units], seconds=_SECONDS)


class OfflineUnitFiles:
    """The unit files below a folder, where nothing runs: units can only be enabled and disabled."""

    def __init__(self, system: System) -> None:
        self._root = f"--root={system.root}"

    def show(self, unit: str, *properties: str) -> Mapping[str, str]:
        """Returns `LoadState`, `UnitFileState` and `ActiveState`; the rest is empty."""
        result = run(["systemctl", self._root, *_QUIET, "is-enabled", "--", unit], ok_statuses=frozenset(range(256)))
        state = result.stdout.strip()
        known = {
            "LoadState": "loaded" if state and state != "not-found" else "not-found",
            "UnitFileState": state,
            "ActiveState": "inactive",
        }
        return {key: known.get(key, "") for key in properties}

    def run_verb(self, verb: str, *units: str) -> None:
        """Runs `enable` and `disable`; ignores the other verbs."""
        if verb in {"enable", "disable"}:
            run(["systemctl", self._root, *_QUIET, verb, "--", *units], seconds=_SECONDS)


def is_booted(system: System) -> bool:
    """Returns whether systemd runs this machine."""
    return system.is_live and system.path("/run/systemd/system").is_dir()


def service_manager(system: System) -> ServiceManager | None:
    """Returns the service manager of this system; None where it is not systemd."""
    if shutil.which("systemctl") is None:
        return None
    if is_booted(system):
        return Systemd()
    has_units = any(system.path(path).is_dir() for path in ("/usr/lib/systemd/system", "/lib/systemd/system"))
    return OfflineUnitFiles(system) if has_units and not system.is_live else None


def enabled_units(system: System) -> set[str]:
    """Returns the services and sockets that systemd starts, by the links in its folders, for an image.

    They are those that `systemctl` calls enabled, and those that the distribution's own folders start (`static`). Units
    of templates are named by the template.

    Raises:
        OSError: a folder cannot be read.
    """
    found = set()
    for folder in map(system.path, _UNIT_FOLDERS):
        for pattern in ("*.wants/*", "*.requires/*", "*.upholds/*"):
            found |= {path.name for path in folder.glob(pattern)}
    for link in system.path(_UNIT_FOLDERS[0]).glob("*"):
        if link.is_symlink():
            found.add(_link_text(link).rpartition("/")[2])  # an alias enables the unit behind it
    return {_template_of(name) for name in found if name.endswith((".service", ".socket")) and _is_unit(system, name)}


def has_unit(system: System, name: str) -> bool:
    """Whether there is such a unit file, if only to mask the unit."""
    return any(path.is_symlink() or path.exists() for path in (system.path(f"{one}/{name}") for one in _UNIT_FOLDERS))


def _is_unit(system: System, name: str) -> bool:
    """Whether the unit exists, and is not masked by a link to /dev/null or an empty file."""
    for folder in _UNIT_FOLDERS:
        for path in dict.fromkeys((system.path(f"{folder}/{name}"), system.path(f"{folder}/{_template_of(name)}"))):
            if path.is_symlink() and _link_text(path) == "/dev/null":
                return False
            if path.is_file():
                return path.stat().st_size > 0
    return False


def _template_of(name: str) -> str:
    """Returns the unit file of a unit: `getty@.service` for `getty@tty1.service`."""
    stem, at, rest = name.partition("@")
    return f"{stem}@.{rest.rpartition('.')[2]}" if at else name


def _link_text(link: Path) -> str:
    with contextlib.suppress(OSError):
        return str(link.readlink())
    return ""


def active_dependents(manager: ServiceManager, unit: str) -> dict[str, str]:
    """Returns every running unit that stopping `unit` would stop too, with the unit that it depends on directly."""
    dependents: dict[str, str] = {}
    pending = [unit]
    while pending and len(dependents) < _MAX_DEPENDENTS:
        current = pending.pop()
        shown = manager.show(current, *_DEPENDENT_PROPERTIES)
        for other in sorted({name for key in _DEPENDENT_PROPERTIES for name in shown[key].split()}):
            is_new = other not in dependents and other != unit
            if is_new and manager.show(other, "ActiveState")["ActiveState"] == "active":
                dependents[other] = current
                pending.append(other)
    return dependents
