"""Services that start by themselves or run: those of the init system, and the entries of inetd and xinetd."""

import re
import shutil
from typing import Final

from device_agent.collectors.base import Section
from device_agent.collectors.reading import ChangeTracker
from device_agent.collectors.system.inits import ServiceStates, units_of
from device_agent.errors import FactsUnavailableError
from device_agent.host import inetd, xinetd
from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System
from device_agent.host.systemd import is_booted

_KINDS: Final = "--type=service,socket"
_PLAIN: Final = ("--no-legend", "--plain", "--no-pager", "--full")
# They come and go with logins and with the boot's own checks, and say nothing of what the device offers.
_PASSING: Final = re.compile(r"^(user@\d+|user-runtime-dir@\d+|run-.*|systemd-fsck@.*|session-.*)\.(service|socket)$")
_OPENED: Final = frozenset({"enabled", "enabled-runtime"})


def collect(system: System) -> Section:
    """The `services` section."""
    init, units = _of_init(system)
    is_inetd_up = bool(inetd.processes(system))
    for entry in inetd.entries(system):
        units[f"inetd:{entry.service}"] = (True, is_inetd_up)
    further = xinetd.entries(system)
    is_xinetd_up = bool(further) and xinetd.is_running(system)
    for one in further:
        units[f"xinetd:{one.service}"] = (True, is_xinetd_up)
    return {
        "state": "ok",
        "init": init,
        "units": [
            {"name": name, "enabled": enabled, "active": active} for name, (enabled, active) in sorted(units.items())
        ],
    }


class ServicesCollector:
    """The `services` section with what appeared and what vanished since the scan before."""

    def __init__(self) -> None:
        self._changes = ChangeTracker()
        self.remembered = self._changes.remembered
        self.recall = self._changes.recall

    def __call__(self, system: System) -> Section:
        """As `collect`."""
        section = collect(system)
        appeared, vanished = self._changes.seen([unit["name"] for unit in section["units"]])
        return {**section, "appeared": appeared, "vanished": vanished}


def _of_init(system: System) -> tuple[str, ServiceStates]:
    has_units = any(system.path(place).is_dir() for place in ("/usr/lib/systemd/system", "/lib/systemd/system"))
    if has_units and shutil.which("systemctl"):
        return "systemd", _systemd(system)
    found = units_of(system)
    if found is None:
        raise FactsUnavailableError("no systemd here that could be asked, nor OpenRC, procd or SysV scripts")
    return found


def _systemd(system: System) -> ServiceStates:
    """Where systemd does not run the machine, nothing of it is active."""
    where = () if is_booted(system) else (f"--root={system.root}",)
    try:
        listed = run(["systemctl", *where, "list-unit-files", _KINDS, *_PLAIN]).out
        running = run(["systemctl", "list-units", _KINDS, "--state=active", *_PLAIN]).out if is_booted(system) else ""
    except ExecuteError as e:
        raise FactsUnavailableError(str(e)) from e
    units: ServiceStates = {}
    for fields in map(str.split, listed.splitlines()):
        if len(fields) > 1 and fields[1] in _OPENED:
            units[fields[0]] = (True, False)
    for fields in map(str.split, running.splitlines()):
        if fields and not _PASSING.match(fields[0]):
            units[fields[0]] = (units.get(fields[0], (False, False))[0], True)
    return units
