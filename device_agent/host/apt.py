"""Commands of apt, for the running system or below another root, and parsers of their output."""

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.files import read_beginning
from device_agent.host.system import System

UNATTENDED: Final = {"DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_MODE": "l"}
_LINE: Final = re.compile(r"^Inst (?P<name>\S+) \[(?P<old>[^]]*)\] \((?P<new>\S+) (?P<origins>[^[)]*)")
# Debian-Security:12/stable-security, Ubuntu:22.04/jammy-security
_SECURITY: Final = re.compile(r"^Debian-Security:|/[^\s/]+-security$|^[^/]*-Security:|^UbuntuESM", re.ASCII)
# openssl/stable-security,stable-updates 3.0.17-1 amd64 [upgradable from: 3.0.15-1]
_LISTED: Final = re.compile(r"^(?P<name>[^\s/]+)/(?P<suites>\S+) (?P<new>\S+) \S+ \[upgradable from: (?P<old>[^]]+)\]")
_SECURITY_SUITE: Final = re.compile(r"(^|-)security$", re.ASCII)  # also jammy-apps-security
_SECURITY_NAMES: Final = re.compile(r"(^|-)security$|^[a-z]+/updates$", re.ASCII)  # buster/updates
_SECURITY_ORIGINS: Final = frozenset({"UbuntuESM", "UbuntuESMApps"})
LISTS: Final = "/var/lib/apt/lists"
# Written after a refresh in which at least one source answered.
_STAMPS: Final = ("/var/lib/apt/periodic/update-success-stamp", "/var/lib/apt/periodic/update-stamp")
_TARGET: Final = ("SITE", "RELEASE", "METAKEY", "FILENAME", "SOURCESENTRY", "REPO_URI")
_MAX_HEAD: Final = 8192  # bytes of a Release file; the checksums follow its fields
_POLICY_FILE: Final = re.compile(r"^\s+(?P<priority>-?\d+) (?P<site>\S+) (?P<suite>\S+) (?:\S+ )?Packages$")
_POLICY_VERSION: Final = re.compile(r"^(?P<mark> \*\*\* |     )(?P<version>\S+) -?\d+")


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
        "-o",
        "Dir::Cache::pkgcache=",  # keeps its work files out of the folder
        "-o",
        "Dir::Cache::srcpkgcache=",
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


@dataclass(frozen=True, slots=True)
class AptTarget:
    """A package list that apt's sources name: address, suite as configured, list and Release file, source line."""

    site: str
    release: str
    list_prefix: str
    entry: str
    uri: str


def parse_targets(output: str) -> tuple[AptTarget, ...]:
    """Parses what `index_targets` prints."""
    targets: dict[AptTarget, None] = {}
    for line in output.splitlines():
        fields = line.split("\t")
        if len(fields) == len(_TARGET):
            site, release, key, file, entry, uri = fields
            name = file.rpartition("/")[2].removesuffix(key.replace("/", "_"))
            targets[AptTarget(site, release, name, entry, uri)] = None
    return tuple(targets)


def index_targets(system: System) -> list[str]:
    """Returns the command that prints every package list that the sources name, fetched or not."""
    columns = "\t".join(f"$({name})" for name in _TARGET)
    return apt_get(system, "--no-release-info", "indextargets", "--format", columns, "Created-By: Packages")


@dataclass(frozen=True, slots=True)
class AptRelease:
    """The head of a Release file; `made_at` is its Date (Unix seconds)."""

    origin: str = ""
    label: str = ""
    suite: str = ""
    codename: str = ""
    made_at: float | None = None

    @property
    def is_security(self) -> bool:
        """Whether the distribution publishes its security updates here."""
        names = (self.suite, self.codename, self.label.lower())
        return self.origin in _SECURITY_ORIGINS or any(_SECURITY_NAMES.search(name) for name in names)


def read_release(path: Path) -> AptRelease:
    """Reads a Release or InRelease file; a field that is absent or not understood is empty."""
    fields: dict[str, str] = {}
    for line in read_beginning(path, _MAX_HEAD)[0].splitlines():
        key, colon, value = line.partition(":")
        if colon and not key.startswith(" "):
            fields.setdefault(key.lower(), value.strip())
    origin, label, suite, codename = (fields.get(key, "") for key in ("origin", "label", "suite", "codename"))
    return AptRelease(origin, label, suite, codename, _unix_time(fields.get("date", "")))


def _unix_time(text: str) -> float | None:
    try:
        then = datetime.strptime(text.replace("GMT", "+0000").replace("UTC", "+0000"), "%a, %d %b %Y %H:%M:%S %z")
    except ValueError:
        return None
    return then.timestamp()


def release_file(system: System, target: AptTarget) -> Path | None:
    """Returns the Release file of a package list; None where it was never fetched."""
    paths = (system.path(f"{LISTS}/{target.list_prefix}{name}") for name in ("InRelease", "Release"))
    return next((path for path in paths if path.is_file()), None)


def is_security_name(release: str) -> bool:
    """Whether a suite, as the sources name it, is one of security updates: bookworm-security, jammy-apps-security."""
    return _SECURITY_NAMES.search(release) is not None


def apt_policy(system: System, *names: str) -> list[str]:
    """Returns the command that shows the versions of packages with their sources; without names, all sources."""
    return _apt("apt-cache", system, ("policy", *names))


def source_priorities(output: str) -> dict[tuple[str, str], int]:
    """Returns the priority of each source in the output of `apt-cache policy`, by address and suite."""
    matches = (_POLICY_FILE.match(line) for line in output.splitlines())
    return {_source(match): int(match["priority"]) for match in matches if match is not None}


def newer_sources(output: str) -> dict[str, set[tuple[str, str]]]:
    """Returns by package the sources (address, suite) with a version after the installed one."""
    found: dict[str, set[tuple[str, str]]] = {}
    name, is_newer = "", False
    for line in output.splitlines():
        if line and not line[0].isspace() and line.endswith(":"):
            name, is_newer = line[:-1], True
        elif (match := _POLICY_FILE.match(line)) is not None:
            if is_newer:
                found.setdefault(name, set()).add(_source(match))
        elif (version := _POLICY_VERSION.match(line)) is not None and version["mark"].strip():
            is_newer = False
    return found


def _source(match: re.Match[str]) -> tuple[str, str]:
    site, suite = match["site"], match["suite"]
    # The component follows the suite; a flat source (`./`) has none.
    return site, suite if suite.endswith("/") else suite.rpartition("/")[0]


def lists_refreshed_at(system: System) -> float | None:
    """Returns when apt last fetched a list, as far as its files tell (Unix seconds); None when never.

    Raises:
        FactsUnavailableError: there are lists, and nothing says of when.
    """
    lists = system.path(LISTS)
    names = sorted(os.listdir(lists)) if lists.is_dir() else []  # noqa: PTH208 - only the names are needed
    if not any("_Packages" in name for name in names):
        return None
    dates = [read_release(lists / name).made_at for name in names if name.endswith(("_InRelease", "_Release"))]
    stamps = [path.stat().st_mtime for path in map(system.path, _STAMPS) if path.is_file()]
    known = [date for date in (*dates, *stamps) if date is not None]
    if not known:
        raise FactsUnavailableError("no Release file says when the package lists were made: run apt-get update")
    return max(known)
