"""Services of init systems other than systemd: OpenRC, OpenWrt's procd, and SysV scripts."""

import contextlib
import json
import re
import shutil
import stat
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import read_beginning, read_text
from device_agent.host.inetd import program_behind
from device_agent.host.system import System

ServiceStates = dict[str, tuple[bool, bool]]
"""By name: whether the service is enabled, and whether it is active."""

_MAX_ENTRIES: Final = 1024  # of one folder
_START_LINK: Final = re.compile(r"^S\d\d?(.+)$")
_DEFAULT_LEVEL: Final = re.compile(r"^[^#:\n]*:([0-6]):initdefault:", re.MULTILINE)
_DEBIAN_LEVEL: Final = "2"
_INITTAB: Final = re.compile(r"^[^#:]*:([^:]*):(?:respawn|respawnlate|askfirst|once|wait|boot|bootwait|ondemand):(.+)$")
_SHELLS: Final = frozenset({"sh", "ash", "bash", "dash"})
_CONSOLE: Final = frozenset(
    {"getty", "agetty", "sh", "ash", "bash", "login", "sulogin", "openvt", "rc", "rcS", "swapoff", "umount"}
)
_MAX_PID_BYTES: Final = 64


def detect_services(system: System) -> tuple[str, ServiceStates] | None:
    """Returns the name of the init system and its services; None when it is none of these."""
    for name, is_present, read in _READERS:
        if is_present(system):
            return name, read(system) if name == "procd" else {**read(system), **_inittab(system)}
    return None


def _names(folder: Path) -> list[str]:
    try:
        names = sorted(path.name for path in islice(folder.iterdir(), _MAX_ENTRIES + 1))
    except (FileNotFoundError, NotADirectoryError):
        return []
    if len(names) > _MAX_ENTRIES:
        raise FactsUnavailableError(f"{folder}: more than {_MAX_ENTRIES} entries")
    return names


def _has_openrc(system: System) -> bool:
    return system.path("/etc/runlevels").is_dir()


def _openrc(system: System) -> ServiceStates:
    units: ServiceStates = {}
    for level in _names(system.path("/etc/runlevels")):
        units.update(dict.fromkeys(_names(system.path(f"/etc/runlevels/{level}")), (True, False)))
    for name in _names(system.path("/run/openrc/started")):
        units[name] = (name in units, True)
    return units


def _has_procd(system: System) -> bool:
    return system.path("/sbin/procd").exists() and system.path("/etc/rc.d").is_dir()


def _procd(system: System) -> ServiceStates:
    units = dict.fromkeys(_start_links(system.path("/etc/rc.d")), (True, False))
    if system.is_live and shutil.which("ubus"):
        with contextlib.suppress(ExecuteError, ValueError):
            for name in parse_ubus_running(run(["ubus", "call", "service", "list"]).stdout):
                units[name] = (name in units, True)
    return units


def parse_ubus_running(text: str) -> list[str]:
    """Returns the services with a running instance from the output of `ubus call service list`.

    Raises:
        ValueError: the text is not such an output.
    """
    services = json.loads(text)
    if not isinstance(services, dict):
        raise ValueError("not an object")  # noqa: TRY004 - bad content, not a caller's error
    return sorted(
        name
        for name, service in services.items()
        if isinstance(service, dict)
        and isinstance(service.get("instances"), dict)
        and any(
            isinstance(instance, dict) and instance.get("running") is True for instance in service["instances"].values()
        )
    )


def _has_busybox_init(system: System) -> bool:
    scripts = system.path("/etc/init.d")
    return _level_folder(system) is None and scripts.is_dir() and system.path("/etc/init.d/rcS").exists()


def _busybox(system: System) -> ServiceStates:
    """The scripts that rcS of Buildroot starts."""
    return {name: (True, _has_process(system, name)) for name in _start_links(system.path("/etc/init.d"))}


def _inittab(system: System) -> ServiceStates:
    """What init keeps running by itself: of its default level, or of any where it has none."""
    text = read_text(system.path("/etc/inittab"))
    default = _DEFAULT_LEVEL.search(text)
    units: ServiceStates = {}
    for line in text.splitlines():
        match = _INITTAB.match(line)
        if match is None or (default and match[1] and default[1] not in match[1]):
            continue
        program = _started_by(match[2].lstrip("-+@").split())
        if program not in _CONSOLE:
            units[f"inittab:{program}"] = (True, True)
    return units


def _started_by(words: list[str]) -> str:
    """Returns the program of a command; of a shell with `-c` the one in its text."""
    name = program_behind(words)
    if name in _SHELLS and "-c" in words:
        inner = " ".join(words[words.index("-c") + 1 :]).strip("\"'").split()
        return program_behind([word for word in inner if word != "exec"])
    return name


def _has_slackware(system: System) -> bool:
    if system.path("/etc/slackware-version").exists():
        return system.path("/etc/rc.d").is_dir()
    return not system.path("/etc/init.d").exists() and any(
        name.startswith("rc.") for name in _names(system.path("/etc/rc.d"))
    )


def _slackware(system: System) -> ServiceStates:
    """A service is enabled when its script is executable."""
    units: ServiceStates = {}
    for name in _names(system.path("/etc/rc.d")):
        script = system.path(f"/etc/rc.d/{name}")
        if name.startswith("rc.") and script.is_file() and script.stat().st_mode & stat.S_IXUSR:
            units[name.removeprefix("rc.")] = (True, _has_process(system, name.removeprefix("rc.")))
    return units


def _has_sysv(system: System) -> bool:
    return system.path("/etc/init.d").is_dir() and _level_folder(system) is not None


def _level_folder(system: System) -> Path | None:
    match = _DEFAULT_LEVEL.search(read_text(system.path("/etc/inittab")))
    level = match[1] if match else _DEBIAN_LEVEL
    folders = (system.path(f"/etc/rc{level}.d"), system.path(f"/etc/rc.d/rc{level}.d"))
    return next((folder for folder in folders if folder.is_dir()), None)


def _sysv(system: System) -> ServiceStates:
    return {name: (True, _has_process(system, name)) for name in sysv_start_scripts(system)}


def sysv_start_scripts(system: System) -> list[str]:
    """Returns the scripts that start in the default runlevel; those of rcS.d run before those of every level."""
    folder = _level_folder(system)
    return [*_start_links(system.path("/etc/rcS.d")), *(_start_links(folder) if folder else [])]


def _start_links(folder: Path) -> list[str]:
    return [match[1] for name in _names(folder) if (match := _START_LINK.match(name))]


def _has_process(system: System, name: str) -> bool:
    for pid_file in (f"/run/{name}.pid", f"/var/run/{name}.pid", f"/run/{name}/{name}.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(read_beginning(system.path(pid_file), _MAX_PID_BYTES)[0])
            if system.path(f"/proc/{pid}").is_dir():
                return True
    return False


_READERS: Final[tuple[tuple[str, Callable[[System], bool], Callable[[System], ServiceStates]], ...]] = (
    ("openrc", _has_openrc, _openrc),
    ("procd", _has_procd, _procd),
    ("sysv", _has_sysv, _sysv),
    ("slackware", _has_slackware, _slackware),
    ("busybox", _has_busybox_init, _busybox),
)
