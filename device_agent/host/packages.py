"""The package manager of a system, the installed version of a package, and the order of versions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import list_files, read_lines
from device_agent.host.image_packages import MAX_DATABASE_BYTES, MAX_DATABASE_LINE, dpkg_version, rpm_database_copy
from device_agent.host.os_release import read_os_release
from device_agent.host.system import System

# Where package databases are; the program of a package manager may also be installed as a mere tool.
_DATABASES: Final = {
    "deb": ("/var/lib/dpkg/status", "/var/lib/dpkg/status.d"),
    "apk": ("/lib/apk/db/installed", "/usr/lib/apk/db/installed"),
    "opkg": ("/usr/lib/opkg/status", "/var/lib/opkg/status"),
    "rpm": ("/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm"),
}
# ID or ID_LIKE of os-release: the scheme. OpenWrt and Yocto have several and are told by their databases.
_DISTRIBUTIONS: Final = {
    **dict.fromkeys(("debian", "ubuntu", "raspbian"), "deb"),
    **dict.fromkeys(("alpine", "postmarketos", "wolfi", "chainguard"), "apk"),
    **dict.fromkeys(("fedora", "rhel", "centos", "ol", "amzn", "mageia", "azurelinux", "mariner"), "rpm"),
    **dict.fromkeys(("suse", "opensuse", "sles", "sle-micro", "sl-micro"), "rpm"),
}
_TRANSACTIONAL: Final = frozenset(
    {"sle-micro", "sl-micro", "suse-microos", "opensuse-microos", "opensuse-leap-micro", "opensuse-aeon"}
)
_RPM_SECONDS: Final = 30.0
_MANAGERS: Final = {"deb": "apt", "apk": "apk", "opkg": "opkg", "rpm": "dnf"}
MANAGER_OF_IMAGES: Final = "rpm-ostree"
_OSTREE: Final = ("/run/ostree-booted", "/ostree/repo", "/sysroot/ostree/repo")


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """An installed package with the version in its package scheme."""

    name: str
    version: str
    scheme: str


def package_scheme(system: System) -> str | None:
    """Returns the package scheme of this system: deb, rpm, apk or opkg; None for others.

    os-release decides; a distribution that it does not tell is known by its database, one with packages before an
    empty one.
    """
    existing = [scheme for scheme in _DATABASES if package_database(system, scheme) is not None]
    named = next((_DISTRIBUTIONS[name] for name in _ids(system) if name in _DISTRIBUTIONS), None)
    if named is not None:
        return named if named in existing else None
    return next((scheme for scheme in existing if _has_content(system, scheme)), next(iter(existing), None))


def require_package_scheme(system: System) -> str:
    """Returns the package scheme; raises FactsUnavailableError where there is none."""
    scheme = package_scheme(system)
    if scheme is None:
        raise FactsUnavailableError(f"no known package manager on {next(filter(None, _ids(system)), 'this system')}")
    return scheme


def package_database(system: System, scheme: str) -> Path | None:
    """Returns the file or folder with the installed packages; None where there is none."""
    paths = [path for path in map(system.path, _DATABASES[scheme]) if path.exists()]
    return next((path for path in paths if _size(path)), next(iter(paths), None))


def package_manager(system: System, scheme: str) -> str:
    """Returns the program that upgrades packages of this scheme."""
    if scheme == "rpm" and any(system.path(path).exists() for path in _OSTREE):
        return MANAGER_OF_IMAGES
    if scheme == "rpm" and any("suse" in name or name.startswith(("sles", "sle-", "sl-")) for name in _ids(system)):
        return "zypper"
    return _MANAGERS[scheme]


def why_updates_are_hidden(system: System, scheme: str) -> str:
    """Returns why a package manager does not know the pending updates of this system; empty where one does."""
    if scheme == "deb" and not system.path(_DATABASES["deb"][0]).exists():
        return "distroless: the image has no package manager and is replaced as a whole"
    if package_manager(system, scheme) == MANAGER_OF_IMAGES:
        return "rpm-ostree updates the system as a whole image"
    if _TRANSACTIONAL.intersection(_ids(system)):
        return "transactional-update installs updates into a new snapshot, which packages of this one do not show"
    return ""


def _ids(system: System) -> list[str]:
    try:
        release = read_os_release(system)
    except FactsUnavailableError:
        return []
    return [release.get("ID", "").lower(), *release.get("ID_LIKE", "").lower().split()]


def _has_content(system: System, scheme: str) -> bool:
    path = package_database(system, scheme)
    return path is not None and _size(path) > 0


def _size(path: Path) -> int:
    """Returns the bytes of a file, or of the largest file of a folder."""
    files = list_files(path) if path.is_dir() else [path]
    return max((file.stat().st_size for file in files), default=0)


def installed(system: System, name: str) -> InstalledPackage | None:
    """Returns the installed package; None when it is not installed or its version cannot be determined."""
    scheme = package_scheme(system)
    if scheme == "deb":
        version = _dpkg_version(system, name)
    elif scheme == "rpm":
        version = _rpm_version(system, name)
    elif scheme == "apk":
        version = _database_version(package_database(system, scheme), "P:", "V:", name)
    elif scheme == "opkg":
        version = _database_version(package_database(system, scheme), "Package: ", "Version: ", name)
    else:
        return None
    return InstalledPackage(name, version, scheme) if version else None


def query_rpm(system: System, *arguments: str) -> str:
    """Returns what this machine's rpm answers about the packages of the system.

    Raises:
        FactsUnavailableError: there is no database, or a prepared folder stands for another machine.
        OSError, ExecuteError: it cannot be read.
    """
    if system.is_live:
        return run(["rpm", *arguments], seconds=_RPM_SECONDS).stdout
    database = package_database(system, "rpm")
    if database is None or not system.is_image:
        raise FactsUnavailableError("rpm's database can be read on the running system only")
    with rpm_database_copy(database) as folder:
        try:
            return run(["rpm", "--dbpath", folder, *arguments], seconds=_RPM_SECONDS).stdout
        except ExecuteError as e:
            raise FactsUnavailableError(str(e).replace(folder, "/" + str(database.relative_to(system.root)))) from e


def _rpm_version(system: System, name: str) -> str:
    try:
        return query_rpm(system, "-q", "--queryformat", "%{EPOCHNUM}:%{VERSION}-%{RELEASE}", name).strip()
    except (ExecuteError, FactsUnavailableError, OSError):
        return ""


def _output_of(*argv: str) -> str:
    try:
        return run(argv).stdout.strip()
    except ExecuteError:
        return ""


def _dpkg_version(system: System, name: str) -> str:
    admin = system.path("/var/lib/dpkg")
    if not (admin / "status").exists():  # distroless: a file for each package
        files = list_files(admin / "status.d")
        return next(filter(None, (_database_version(file, "Package: ", "Version: ", name) for file in files)), "")
    if system.is_image:
        return dpkg_version(admin / "status", name)
    # A package may be known but removed, or be installed for two architectures.
    output = _output_of("dpkg-query", f"--admindir={admin}", "-W", "-f", "${db:Status-Status} ${Version}\n", name)
    versions = [
        version for status, _, version in (line.partition(" ") for line in output.splitlines()) if status == "installed"
    ]
    return versions[0] if versions else ""


def _database_version(path: Path | None, name_key: str, version_key: str, name: str) -> str:
    current = ""
    if path is None:
        return ""
    for line in read_lines(path, MAX_DATABASE_BYTES, MAX_DATABASE_LINE):
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
