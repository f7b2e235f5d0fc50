"""The package manager of a system, and the installed version of a package."""

import shutil
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
