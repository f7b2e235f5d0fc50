"""Commands of apt, for the running system or below another root, and parsers of their output."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.host.system import System

UNATTENDED: Final = {"DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_MODE": "l"}
_LINE: Final = re.compile(r"^Inst (?P<name>\S+) \[(?P<old>[^]]*)\] \((?P<new>\S+) (?P<origins>[^[)]*)")
# Debian-Security:12/stable-security, Ubuntu:22.04/jammy-security
_SECURITY: Final = re.compile(r"^Debian-Security:|/[a-z]+-security$|^[^/]*-Security:", re.ASCII)
# openssl/stable-security,stable-updates 3.0.17-1 amd64 [upgradable from: 3.0.15-1]
_LISTED: Final = re.compile(r"^(?P<name>[^\s/]+)/(?P<suites>\S+) (?P<new>\S+) \S+ \[upgradable from: (?P<old>[^]]+)\]")
_SECURITY_SUITE: Final = re.compile(r"^[a-z]+-security$", re.ASCII)


@dataclass(frozen=True, slots=True)
class AptUpgrade:
    """A package that apt can upgrade."""

    name: str
    old: str
    new: str
    is_security: bool


def apt_get(system: System, *arguments: str) -> list[str]:
    """Returns the argument list of apt-get for a system."""
    return _apt("apt-get", system, arguments)


def apt_list(system: System) -> list[str]:
    """Returns the command that lists upgradable packages; `listed` parses its output.

    Much cheaper than simulating an upgrade, and it includes updates that are held back or blocked.
    """
    return _apt("apt", system, ("list", "--upgradable"))


def _apt(program: str, system: System, arguments: tuple[str, ...]) -> list[str]:
    if system.is_live:
        return [program, "-q", *arguments]
    root = str(system.root)
    return [
        program,
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


def upgrades(output: str) -> tuple[AptUpgrade, ...]:
    """Parses the upgrades in the output of `apt-get -s`; newly installed packages are no upgrades."""
    packages = []
    for line in output.splitlines():
        match = _LINE.match(line)
        if match is not None:
            origins = [origin.strip() for origin in match["origins"].split(",")]
            is_security = any(_SECURITY.search(origin) for origin in origins)
            packages.append(AptUpgrade(match["name"], match["old"], match["new"], is_security))
    return tuple(packages)


def listed(output: str) -> tuple[AptUpgrade, ...]:
    """Parses the output of `apt list --upgradable`; a package of two architectures counts once, as in `upgrades`."""
    packages: dict[str, AptUpgrade] = {}
    for line in output.splitlines():
        match = _LISTED.match(line)
        if match is not None:
            is_security = any(_SECURITY_SUITE.search(suite) for suite in match["suites"].split(","))
            packages.setdefault(match["name"], AptUpgrade(match["name"], match["old"], match["new"], is_security))
    return tuple(packages.values())


def lists_refreshed_at(system: System) -> float | None:
    """Returns when the package lists were last fetched (Unix seconds); None when never."""
    lists = system.path("/var/lib/apt/lists")
    if not any(_is_index(path) for path in _entries(lists)):
        return None
    marks = (lists, lists / "partial", system.path("/var/lib/apt/periodic/update-success-stamp"))
    return max(path.stat().st_mtime for path in marks if path.exists())


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_index(path: Path) -> bool:
    return "_Packages" in path.name
