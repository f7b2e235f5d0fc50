"""How apt is asked: the same for looking and for upgrading, on the running system or below another root."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.system import System

UNATTENDED: Final = {"DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_MODE": "l"}
_LINE: Final = re.compile(r"^Inst (?P<name>\S+) \[(?P<old>[^]]*)\] \((?P<new>\S+) (?P<origins>[^[)]*)")
# Debian-Security:12/stable-security, Ubuntu:22.04/jammy-security
_SECURITY: Final = re.compile(r"^Debian-Security:|/[a-z]+-security$|^[^/]*-Security:", re.ASCII)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A package that apt would upgrade."""

    name: str
    old: str
    new: str
    is_security: bool


def apt_get(system: System, *arguments: str) -> list[str]:
    """The argument list of apt-get for a system."""
    if system.is_live:
        return ["apt-get", "-q", *arguments]
    root = str(system.root)
    return [
        "apt-get",
        "-q",
        "-o",
        f"Dir={root}",
        "-o",
        f"Dir::State::status={root}/var/lib/dpkg/status",
        "-o",
        f"DPkg::Options::=--root={root}",
        "-o",
        "DPkg::Options::=--force-not-root",
        "-o",
        "APT::Sandbox::User=",
        *arguments,
    ]


def upgrades(output: str) -> tuple[Upgrade, ...]:
    """Read what `apt-get -s` would upgrade; packages that would be newly installed are no upgrades."""
    found = []
    for line in output.splitlines():
        match = _LINE.match(line)
        if match is not None:
            origins = [origin.strip() for origin in match["origins"].split(",")]
            is_security = any(_SECURITY.search(origin) for origin in origins)
            found.append(Upgrade(match["name"], match["old"], match["new"], is_security))
    return tuple(found)


def lists_refreshed_at(system: System) -> float | None:
    """When the package lists were last fetched (seconds since the epoch); None when never."""
    lists = system.path("/var/lib/apt/lists")
    if not any(_is_index(path) for path in _entries(lists)):
        return None
    marks = (lists, lists / "partial", system.path("/var/lib/apt/periodic/update-success-stamp"))
    return max(path.stat().st_mtime for path in marks if path.exists())


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_index(path: Path) -> bool:
    return "_Packages" in path.name
