"""Enabled or running services (section `services`): of the init system, and the entries of inetd and xinetd."""

import re
import shutil
from typing import Final

from device_agent.collectors.base import ChangeTracker, Section, SectionBuilder
from device_agent.collectors.system.inits import ServiceStates, detect_services, sysv_start_scripts
from device_agent.collectors.system.started_programs import add_boot_commands, add_programs
from device_agent.collectors.system.supervisors import read_supervised
from device_agent.errors import FactsUnavailableError
from device_agent.host import inetd, xinetd
from device_agent.host.execute import ExecuteError, run
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from device_agent.host.systemd import enabled_units, has_unit, is_booted

_KINDS: Final = "--type=service,socket"
_PLAIN: Final = ("--no-legend", "--plain", "--no-pager", "--full")
# Units that logins and boot-time checks start; they are not services of the device.
_TRANSIENT: Final = re.compile(r"^(user@\d+|user-runtime-dir@\d+|run-.*|systemd-fsck@.*|session-.*)\.(service|socket)$")
_GENERATOR: Final = "system-generators/systemd-sysv-generator"
_ENABLED: Final = frozenset({"enabled", "enabled-runtime"})


def collect(system: System, changes: ChangeTracker | None = None) -> Section:
    """Collects the `services` section, with the changes since the previous scan if there is a tracker."""
    programs: dict[str, set[str]] = {}
    gaps = GapRecorder()
    init, units = _init_services(system, programs, gaps)
    add_programs(system, [name for name in units if name not in programs], programs, gaps)
    boot: dict[str, set[str]] = {}
    add_boot_commands(system, boot, gaps)
    programs.update(boot)
    units.update(dict.fromkeys(boot, (True, False)))
    is_inetd_up = bool(inetd.processes(system))
    for entry in inetd.entries(system):
        units[f"inetd:{entry.service}"] = (True, is_inetd_up)
        programs.setdefault(f"inetd:{entry.service}", set()).add(entry.program)
    xinetd_entries = gaps.take(xinetd.read_entries(system))
    is_xinetd_up = bool(xinetd_entries) and bool(xinetd.processes(system))
    for xinetd_entry in xinetd_entries:
        units[f"xinetd:{xinetd_entry.service}"] = (True, is_xinetd_up)
        programs.setdefault(f"xinetd:{xinetd_entry.service}", set()).add(xinetd_entry.program)
    rows = [
        {"name": name, "enabled": enabled, "active": active, **({"program": program} if program else {})}
        for name, (enabled, active) in sorted(units.items())
        for program in sorted(programs.get(name, {""}))
    ]
    section = SectionBuilder(init=init, units=rows)
    section.add_gaps(gaps.gaps, "units")
    if changes is not None:
        appeared, vanished = changes.update(sorted(units))
        section.set(appeared=appeared, vanished=vanished)
    return section.build()


class ServicesCollector:
    """Collects the `services` section with the services that appeared and vanished since the previous scan."""

    def __init__(self) -> None:
        self._changes = ChangeTracker()
        self.state = self._changes.state
        self.restore = self._changes.restore

    def __call__(self, system: System) -> Section:
        return collect(system, self._changes)


def _init_services(system: System, programs: dict[str, set[str]], gaps: GapRecorder) -> tuple[str, ServiceStates]:
    has_units = any(system.path(folder).is_dir() for folder in ("/usr/lib/systemd/system", "/lib/systemd/system"))
    if has_units and system.is_image and _starts_systemd(system):
        return "systemd", _systemd_of_image(system)
    if has_units and not system.is_image and shutil.which("systemctl"):
        return "systemd", _systemd(system)
    services = detect_services(system)
    if services is not None:
        return services
    supervised = read_supervised(system, gaps)
    if supervised is None:
        raise FactsUnavailableError(_unread_init(system))
    name, found = supervised
    programs.update({service.name: {service.program} for service in found})
    return name, {service.name: (service.is_enabled, service.is_active) for service in found}


def _starts_systemd(system: System) -> bool:
    """Whether systemd is the first process of an image: of one with another init, units are mere files."""
    init = system.path("/sbin/init")
    return not init.exists() or init.resolve().name == "systemd"


def _systemd_of_image(system: System) -> ServiceStates:
    units = enabled_units(system)
    if any(system.path(f"{folder}/{_GENERATOR}").exists() for folder in ("/usr/lib/systemd", "/lib/systemd")):
        units |= {f"{name}.service" for name in sysv_start_scripts(system) if not has_unit(system, f"{name}.service")}
    return dict.fromkeys(units, (True, False))


def _unread_init(system: System) -> str:
    known = {"/etc/s6": "s6", "/etc/s6-overlay": "s6", "/etc/runit": "runit", "/etc/dinit.d": "dinit"}
    name = next((name for path, name in known.items() if system.path(path).is_dir()), "")
    if name:
        return f"services of {name} are not read"
    if system.is_image and not system.path("/sbin/init").exists():
        return "no init system is installed, as in the image of a container, which starts one program"
    return "neither a usable systemctl nor OpenRC, procd, SysV, BusyBox or Slackware scripts"


def _systemd(system: System) -> ServiceStates:
    """Returns the units of systemd; none is active where systemd does not run the machine."""
    root = () if is_booted(system) else (f"--root={system.root}",)
    try:
        listed = run(["systemctl", *root, "list-unit-files", _KINDS, *_PLAIN]).stdout
        running = (
            run(["systemctl", "list-units", _KINDS, "--state=active", *_PLAIN]).stdout if is_booted(system) else ""
        )
    except ExecuteError as e:
        raise FactsUnavailableError(str(e)) from e
    units: ServiceStates = {}
    for fields in map(str.split, listed.splitlines()):
        if len(fields) > 1 and fields[1] in _ENABLED:
            units[fields[0]] = (True, False)
    for fields in map(str.split, running.splitlines()):
        if fields and not _TRANSIENT.match(fields[0]):
            units[fields[0]] = (units.get(fields[0], (False, False))[0], True)
    return units
