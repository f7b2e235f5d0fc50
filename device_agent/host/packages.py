"""The package manager of a system, the installed version of a package, and the order of versions."""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

# Databases, because the program of a package manager may also be installed as a mere tool.
_DATABASES: Final = (
    ("deb", "/var/lib/dpkg/status"),
    ("apk", "/lib/apk/db/installed"),
    ("opkg", "/usr/lib/opkg/status"),
    ("rpm", "/var/lib/rpm"),
    ("rpm", "/usr/lib/sysimage/rpm"),
)
_MANAGERS: Final = {"deb": "apt", "apk": "apk", "opkg": "opkg", "rpm": "dnf"}


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """An installed package with the version in its package scheme."""

    name: str
    version: str
    scheme: str


def package_scheme(system: System) -> str | None:
    """Returns the package scheme of this system: deb, rpm, apk or opkg; None for others."""
    return next((scheme for scheme, path in _DATABASES if system.path(path).exists()), None)


def package_manager(scheme: str) -> str:
    """Returns the program that upgrades packages of this scheme."""
    return _MANAGERS[scheme]


def installed(system: System, name: str) -> InstalledPackage | None:
    """Returns the installed package; None when it is not installed or its version cannot be determined."""
    scheme = package_scheme(system)
    if scheme == "deb":
        version = _dpkg_version(system, name)
    elif scheme == "rpm" and system.is_live and shutil.which("rpm"):
        version = _output_of("rpm", "-q", "--queryformat", "%{EPOCHNUM}:%{VERSION}-%{RELEASE}", name)
    elif scheme == "apk":
        version = _database_version(system, "/lib/apk/db/installed", "P:", "V:", name)
    elif scheme == "opkg":
        version = _database_version(system, "/usr/lib/opkg/status", "Package: ", "Version: ", name)
    else:
        return None
    return InstalledPackage(name, version, scheme) if version else None


def _output_of(*argv: str) -> str:
    try:
        return run(argv).stdout.strip()
    except ExecuteError:
        return ""


def _dpkg_version(system: System, name: str) -> str:
    admin = system.path("/var/lib/dpkg")
    # A package may be known but removed, or be installed for two architectures.
    output = _output_of("dpkg-query", f"--admindir={admin}", "-W", "-f", "${db:Status-Status} ${Version}\n", name)
    versions = [
        version for status, _, version in (line.partition(" ") for line in output.splitlines()) if status == "installed"
    ]
    return versions[0] if versions else ""


def _database_version(system: System, path: str, name_key: str, version_key: str, name: str) -> str:
    current = ""
    with system.path(path).open(errors="replace") as lines:
        for line in lines:
            if line.startswith(name_key):
                current = line[len(name_key) :].strip()
            elif line.startswith(version_key) and current == name:
                return line[len(version_key) :].strip()
    return ""


def compare_package_versions(scheme: str, one: str, other: str) -> int | None:
    """Returns -1, 0 or 1 by the comparison of the package manager itself; None where it has no order for them."""
    if one == other:
        return 0
    if _COMPARED.fullmatch(one) is None or _COMPARED.fullmatch(other) is None:
        return None
    match scheme:
        case "deb":
            return _by_exit_status(lambda sign: ("dpkg", "--compare-versions", one, sign, other), "lt", "gt")
        case "opkg":
            return _by_exit_status(lambda sign: ("opkg", "compare-versions", one, sign, other), "<<", ">>")
        case "apk":
            return _SIGNS.get(_output_of("apk", "version", "-t", one, other))
        case "rpm":
            return _compare_rpm(one, other)
        case _:
            return None


_COMPARED: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+:~^_-]{0,255}")
_SIGNS: Final = {"<": -1, "=": 0, ">": 1}
_RPM: Final = re.compile(r"(?:(\d{1,9}):)?([^:-]+)(?:-([^:-]+))?")


def _by_exit_status(argv: Callable[[str], Sequence[str]], before: str, after: str) -> int | None:
    holds = []
    for sign in (before, after):
        try:
            result = run(argv(sign), ok_statuses=frozenset({0, 1}))
        except ExecuteError:
            return None
        if result.stderr.strip():  # dpkg goes on after a version of bad syntax, with a warning
            return None
        holds.append(result.status == 0)
    return holds[1] - holds[0]


def _compare_rpm(one: str, other: str) -> int | None:
    """Compares as rpm does for its dependencies: a version without a release stands for all its releases."""
    left, right = _RPM.fullmatch(one), _RPM.fullmatch(other)
    if left is None or right is None:
        return None
    epochs = int(left[1] or 0), int(right[1] or 0)
    if epochs[0] != epochs[1]:
        return -1 if epochs[0] < epochs[1] else 1
    for part, others in ((left[2], right[2]), (left[3], right[3])):
        if part is None or others is None:
            return 0
        output = _output_of("rpm", "--eval", f'%{{lua:print(rpm.vercmp("{part}","{others}"))}}')
        if output not in {"-1", "0", "1"}:
            return None
        if output != "0":
            return int(output)
    return 0
