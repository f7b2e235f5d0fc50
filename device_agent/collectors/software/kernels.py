"""Compares the running kernel with the installed ones."""

import platform
import re
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.packages import installed
from device_agent.host.system import System

_MAX_KERNELS: Final = 64
_LEADING_VERSION: Final = re.compile(r"^\d+(?:\.\d+)*(?:-rc\d+)?")
# Parts of a release that number its builds: 41, fc39, el8_10, deb13, bpo12, and rpt of Raspberry Pi OS.
_BUILD: Final = re.compile(
    r"(?:\d+|(?:rc|fc|el|oe|amzn|mga|azl|cm|deb|bpo|rpt|arch)[\d_]*|(?:r|rpi|zen|lqx|tkg|pf|bone)\d+|g[0-9a-f]{7,40})",
    re.ASCII,
)
_COMMIT: Final = re.compile(r"-g[0-9a-f]{7,40}\b", re.ASCII)  # CONFIG_LOCALVERSION_AUTO
# Parts whose number names a processor or a size of pages.
_PROCESSOR: Final = re.compile(
    r"v[5-8]l?|[ax]?(?:rm|md|86_)64|[ix]?[3-6]86|armv\d\w*|s390x|(?:4|16|64)k|\w+64(?:le|el)?"
)
_MODEL: Final = frozenset({"2712"})  # Raspberry Pi 5
# Debian's kernels have the version of their package in their own version string.
_DEBIAN_BUILD: Final = re.compile(r"\bDebian (\d\S*)")


def releases(system: System) -> list[str]:
    """Returns the releases of the installed kernels, oldest first: of the images in /boot, else of the modules."""
    names = [path.name.removeprefix("vmlinuz-") for path in _glob(system, "/boot", "vmlinuz-*")]
    names = [name for name in names if "rescue" not in name and name[:1].isdigit()]
    if not names:
        folders = [*_glob(system, "/lib/modules", "*"), *_glob(system, "/usr/lib/modules", "*")]
        names = [path.name for path in folders if path.name[:1].isdigit() and path.is_dir()]
    return sorted(set(names), key=release_key)


def _glob(system: System, folder: str, pattern: str) -> list[Path]:
    found = sorted(system.path(folder).glob(pattern))
    if len(found) > _MAX_KERNELS:
        raise FactsUnavailableError(f"{folder}: more than {_MAX_KERNELS} kernels")
    return found


def release_key(release: str) -> list[tuple[int, int, str]]:
    """Returns a sort key that compares numbers as numbers: 6.1.0-9 before 6.1.0-41."""
    parts = re.findall(r"\d+|[^\d.\-]+", release[:128])
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def flavour(release: str) -> str:
    """Returns the kind of kernel: amd64, rt-amd64, generic, v7l; a kernel of another flavour is not an update."""
    parts = re.split(r"[-.+~]", _LEADING_VERSION.sub("", release[:128]))
    return "-".join(part for part in parts if part in _MODEL or (part and not _BUILD.fullmatch(part)))


def newest_and_current(system: System) -> tuple[str, bool | None]:
    """Returns the newest installed release of the running kernel's flavour, and whether it is running.

    Raises:
        FactsUnavailableError: no kernel is installed, as in a container, or none of this flavour.
    """
    installed_releases = releases(system)
    if not installed_releases:
        raise FactsUnavailableError("no installed kernel was found")
    if not system.is_live:
        return installed_releases[-1], None
    running = platform.uname()
    same_flavour = [release for release in installed_releases if flavour(release) == flavour(running.release)]
    if not same_flavour:
        raise FactsUnavailableError("no installed kernel of the running kernel's kind was found")
    newest = same_flavour[-1]
    _require_order(installed_releases, same_flavour)
    return newest, newest == running.release and _is_build_current(system, running.release, running.version)


def _require_order(installed_releases: list[str], same_flavour: list[str]) -> None:
    """Refuses kernels of which names do not tell which one is newer.

    Raises:
        FactsUnavailableError: they differ in a commit alone, or in a number of an unknown kind.
    """
    newest = same_flavour[-1]
    for release in installed_releases:
        is_same = release in same_flavour
        by_commit = is_same and release != newest and _COMMIT.sub("", release) == _COMMIT.sub("", newest)
        by_number = not is_same and _without_numbers(release) == _without_numbers(newest)
        if by_commit or (by_number and release_key(release) > release_key(newest)):
            raise FactsUnavailableError(f"the names do not tell which kernel is newer, {newest} or {release}")


def _without_numbers(release: str) -> str:
    parts = flavour(release).split("-")
    return "-".join(
        part if _PROCESSOR.fullmatch(part) or part in _MODEL else re.sub(r"\d+", "#", part) for part in parts
    )


def _is_build_current(system: System, release: str, version: str) -> bool:
    """Compares the build with the installed package: Debian's security updates keep the release."""
    build = _DEBIAN_BUILD.search(version)
    package = installed(system, f"linux-image-{release}") if build else None
    return build is None or package is None or package.version == build[1]
