"""Which package manager looks after this system, and the version it has of a package."""

import shutil
from dataclasses import dataclass
from typing import Final

from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System

# A database that only its own manager has; the program alone may be installed as a mere tool.
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
    """An installed package."""

    name: str
    version: str
    scheme: str


def scheme_of(system: System) -> str | None:
    """The package scheme of this system: deb, rpm, apk, opkg; None when none of them looks after it."""
    return next((scheme for scheme, place in _DATABASES if system.path(place).exists()), None)


def manager_of(scheme: str) -> str:
    """The program that upgrades packages of this scheme."""
    return _MANAGERS[scheme]


def installed(system: System, name: str) -> InstalledPackage | None:
    """The installed version of a package; None when it is not installed or cannot be told."""
    scheme = scheme_of(system)
    if scheme == "deb":
        version = _deb(system, name)
    elif scheme == "rpm" and system.is_live and shutil.which("rpm"):
        version = _said("rpm", "-q", "--queryformat", "%{EPOCHNUM}:%{VERSION}-%{RELEASE}", name)
    elif scheme == "apk":
        version = _listed(system, "/lib/apk/db/installed", "P:", "V:", name)
    elif scheme == "opkg":
        version = _listed(system, "/usr/lib/opkg/status", "Package: ", "Version: ", name)
    else:
        return None
    return InstalledPackage(name, version, scheme) if version else None


def _said(*argv: str) -> str:
    try:
        return run(argv).out.strip()
    except ExecuteError:
        return ""


def _deb(system: System, name: str) -> str:
    admin = system.path("/var/lib/dpkg")
    out = _said(
        "dpkg-query", f"--admindir={admin}", "-W", "-f", "${db:Status-Status} ${Version}\n", name
    )  # a package may be known and removed, or be there for two architectures
    versions = [
        version for status, _, version in (line.partition(" ") for line in out.splitlines()) if status == "installed"
    ]
    return versions[0] if versions else ""


def _listed(system: System, place: str, name_key: str, version_key: str, name: str) -> str:
    current = ""
    with system.path(place).open(errors="replace") as lines:
        for line in lines:
            if line.startswith(name_key):
                current = line[len(name_key) :].strip()
            elif line.startswith(version_key) and current == name:
                return line[len(version_key) :].strip()
    return ""
