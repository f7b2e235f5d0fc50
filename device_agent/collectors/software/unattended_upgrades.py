"""Whether updates are installed without a person."""

import os
from typing import Final

from device_agent.collectors.software import apt_conf
from device_agent.collectors.software.sources import parse_repos
from device_agent.host.files import files_in, text_of
from device_agent.host.system import System

_UNITS: Final = "/etc/systemd/system"
_ANY_INSTALLER: Final = ("/usr/bin/unattended-upgrade", "/usr/bin/unattended-upgrades")
_DNF_CONFIGS: Final = ("/usr/share/dnf5/dnf5-plugins/automatic.conf", "/etc/dnf/automatic.conf")
_DNF_TIMERS: Final = ("dnf-automatic.timer", "dnf5-automatic.timer")
_DNF_INSTALLS: Final = "dnf-automatic-install.timer"
_CRON: Final = (
    "/etc/crontabs",
    "/var/spool/cron/crontabs",
    "/etc/periodic/daily",
    "/etc/periodic/weekly",
    "/etc/cron.d",
)
_YES: Final = frozenset({"yes", "true", "1", "on"})
_UPGRADERS: Final = frozenset({"apk", "opkg"})


def is_unattended(system: System, scheme: str) -> bool:
    """By what the manager's own way of doing it is set to.

    Raises:
        OSError: a file of it cannot be read.
    """
    if scheme == "deb":
        return _apt(system)
    if scheme == "rpm":
        return _dnf(system)
    files = (path for folder in _CRON for path in files_in(system.path(folder)))
    return any(_upgrades(line) for path in files for line in text_of(path).splitlines())


def _upgrades(line: str) -> bool:
    words = line.split()
    is_comment = words[:1] == [] or words[0].startswith("#")
    return not is_comment and "upgrade" in words and any(word.rpartition("/")[2] in _UPGRADERS for word in words)


def _apt(system: System) -> bool:
    known = apt_conf.settings(system)
    every = known.get("apt::periodic::unattended-upgrade", "0").strip()
    is_on = every not in ("", "0") and known.get("apt::periodic::enable", "1").strip() != "0"
    has_program = any(system.path(place).is_file() for place in _ANY_INSTALLER)
    return is_on and has_program and not _is_masked(system, "apt-daily-upgrade.timer")


def _is_masked(system: System, unit: str) -> bool:
    path = system.path(f"{_UNITS}/{unit}")
    return path.is_symlink() and os.readlink(path) == "/dev/null"  # noqa: PTH115 - its text, not where it leads


def _dnf(system: System) -> bool:
    linked = {path.name for path in system.path(_UNITS).glob("*.wants/*.timer")}
    if _DNF_INSTALLS in linked:
        return True
    commands: dict[str, str] = {}
    for place in _DNF_CONFIGS:
        commands.update(parse_repos(text_of(system.path(place))).get("commands", {}))
    return commands.get("apply_updates", "no").lower() in _YES and bool(linked.intersection(_DNF_TIMERS))
