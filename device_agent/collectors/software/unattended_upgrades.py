"""Detects whether updates are installed automatically."""

import os
from typing import Final

from device_agent.collectors.software import apt_conf
from device_agent.collectors.software.sources import parse_repos
from device_agent.host.files import list_files, read_text
from device_agent.host.system import System

_UNITS: Final = "/etc/systemd/system"
_APT_INSTALLERS: Final = ("/usr/bin/unattended-upgrade", "/usr/bin/unattended-upgrades")
_DNF_CONFIGS: Final = ("/usr/share/dnf5/dnf5-plugins/automatic.conf", "/etc/dnf/automatic.conf")
_DNF_TIMERS: Final = ("dnf-automatic.timer", "dnf5-automatic.timer")
_DNF_INSTALL_TIMER: Final = "dnf-automatic-install.timer"
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
    """Whether the package manager's own mechanism (or a cron job for apk and opkg) installs updates.

    Raises:
        OSError: a configuration file cannot be read.
    """
    if scheme == "deb":
        return _apt(system)
    if scheme == "rpm":
        return _dnf(system)
    files = (path for folder in _CRON for path in list_files(system.path(folder)))
    return any(_upgrades(line) for path in files for line in read_text(path).splitlines())


def _upgrades(line: str) -> bool:
    fields = line.split()
    is_comment = fields[:1] == [] or fields[0].startswith("#")
    return not is_comment and "upgrade" in fields and any(field.rpartition("/")[2] in _UPGRADERS for field in fields)


def _apt(system: System) -> bool:
    settings = apt_conf.settings(system)
    interval = settings.get("apt::periodic::unattended-upgrade", "0").strip()
    is_on = interval not in ("", "0") and settings.get("apt::periodic::enable", "1").strip() != "0"
    has_program = any(system.path(program).is_file() for program in _APT_INSTALLERS)
    return is_on and has_program and not _is_masked(system, "apt-daily-upgrade.timer")


def _is_masked(system: System, unit: str) -> bool:
    path = system.path(f"{_UNITS}/{unit}")
    return path.is_symlink() and os.readlink(path) == "/dev/null"  # noqa: PTH115 - the link's text, not its target


def _dnf(system: System) -> bool:
    linked = {path.name for path in system.path(_UNITS).glob("*.wants/*.timer")}
    if _DNF_INSTALL_TIMER in linked:
        return True
    commands: dict[str, str] = {}
    for config in _DNF_CONFIGS:
        commands.update(parse_repos(read_text(system.path(config))).get("commands", {}))
    return commands.get("apply_updates", "no").lower() in _YES and bool(linked.intersection(_DNF_TIMERS))
