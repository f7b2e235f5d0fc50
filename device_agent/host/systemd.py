"""What the agent has systemd do: the one that runs the machine, or on the unit files of a prepared folder."""

import shutil
from collections.abc import Mapping
from typing import Final, Protocol

from device_agent.host.execute import run
from device_agent.host.system import System


def is_booted(system: System) -> bool:
    """Whether systemd runs this machine."""
    return system.is_live and system.path("/run/systemd/system").is_dir()


_SECONDS: Final = 120.0  # a unit may take its time to stop
_QUIET: Final = ("--no-pager", "--no-ask-password")
OPENED: Final = frozenset({"enabled", "enabled-runtime"})
STOPPED: Final = frozenset({"inactive", "failed"})


class ServiceManager(Protocol):
    """The service manager of a machine; every method raises ExecuteError where it refuses."""

    def show(self, unit: str, *properties: str) -> Mapping[str, str]:
        """These properties of a unit, empty where they have no value."""
        ...

    def do(self, verb: str, *units: str) -> None:
        """`enable`, `disable`, `start`, `stop` or `restart` units."""
        ...


class Systemd:
    """The running systemd, by `systemctl`."""

    def show(self, unit: str, *properties: str) -> Mapping[str, str]:
        """As `systemctl show` says."""
        fields = dict.fromkeys(properties, "")
        out = run(
            ["systemctl", *_QUIET, "show", f"--property={','.join(properties)}", "--", unit], seconds=_SECONDS
        ).out
        for line in out.splitlines():
            key, _, value = line.partition("=")
            fields[key] = value
        return fields

    def do(self, verb: str, *units: str) -> None:
        """As `systemctl VERB UNIT...` does."""
        run(["systemctl", *_QUIET, verb, "--", *units], seconds=_SECONDS)


class OfflineUnitFiles:
    """The unit files below a folder: nothing of it runs, so only what starts by itself can be seen and changed."""

    def __init__(self, system: System) -> None:
        self._root = f"--root={system.root}"

    def show(self, unit: str, *properties: str) -> Mapping[str, str]:
        """`LoadState`, `UnitFileState` and `ActiveState`, the rest empty."""
        done = run(["systemctl", self._root, *_QUIET, "is-enabled", "--", unit], ok=frozenset(range(256)))
        state = done.out.strip()
        known = {
            "LoadState": "loaded" if state and state != "not-found" else "not-found",
            "UnitFileState": state,
            "ActiveState": "inactive",
        }
        return {**dict.fromkeys(properties, ""), **{key: known[key] for key in properties if key in known}}

    def do(self, verb: str, *units: str) -> None:
        """Only `enable` and `disable` mean something here."""
        if verb in {"enable", "disable"}:
            run(["systemctl", self._root, *_QUIET, verb, "--", *units], seconds=_SECONDS)


def service_manager(system: System) -> ServiceManager | None:
    """The service manager of this system; None where it is not systemd."""
    if shutil.which("systemctl") is None:
        return None
    if is_booted(system):
        return Systemd()
    has_units = any(system.path(place).is_dir() for place in ("/usr/lib/systemd/system", "/lib/systemd/system"))
    return OfflineUnitFiles(system) if has_units and not system.is_live else None


# What goes down with a unit that is stopped, as systemd says it of that unit.
_GO_DOWN: Final = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf")
_MOST: Final = 256  # units that are followed


def active_dependents(units: ServiceManager, unit: str) -> dict[str, str]:
    """Every running unit that stopping `unit` would stop too, and through which other each is bound to it."""
    found: dict[str, str] = {}
    to_see = [unit]
    while to_see and len(found) < _MOST:
        at = to_see.pop()
        shown = units.show(at, *_GO_DOWN)
        for other in sorted({name for key in _GO_DOWN for name in shown[key].split()}):
            if other not in found and other != unit and units.show(other, "ActiveState")["ActiveState"] == "active":
                found[other] = at
                to_see.append(other)
    return found
