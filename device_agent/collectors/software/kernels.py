"""The running kernel against those that are installed."""

import platform
import re
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.packages import installed
from device_agent.host.system import System

_MAX_KERNELS: Final = 64
_FLAVOUR: Final = re.compile(r"[-.]([A-Za-z_][A-Za-z0-9_]*)$")
# What Debian writes into its kernel's own version: that of the package it was built as.
_DEBIAN_BUILD: Final = re.compile(r"\bDebian (\d\S*)")


def releases(system: System) -> list[str]:
    """Releases of installed kernels, oldest first; from /boot, and where nothing is there from their modules."""
    images = [path.name.removeprefix("vmlinuz-") for path in _listed(system, "/boot", "vmlinuz-*")]
    images = [name for name in images if "rescue" not in name and name[:1].isdigit()]
    if not images:
        folders = [*_listed(system, "/lib/modules", "*"), *_listed(system, "/usr/lib/modules", "*")]
        images = [path.name for path in folders if path.name[:1].isdigit() and path.is_dir()]
    return sorted(set(images), key=order)


def _listed(system: System, folder: str, pattern: str) -> list[Path]:
    return sorted(system.path(folder).glob(pattern))[:_MAX_KERNELS]


def order(release: str) -> list[tuple[int, int, str]]:
    """Sorts numbers as numbers: 6.1.0-9 before 6.1.0-41."""
    parts = re.findall(r"\d+|[^\d.\-]+", release[:128])
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def flavour(release: str) -> str:
    """What follows the version: amd64, generic, lts; kernels of another flavour are no successors."""
    match = _FLAVOUR.search(release)
    return match[1] if match else ""


def newest_and_current(system: System) -> tuple[str, bool | None]:
    """The newest installed release of the running kernel's flavour, and whether it is the one that runs.

    Raises:
        FactsUnavailableError: no kernel is installed, as in a container.
    """
    found = releases(system)
    if not found:
        raise FactsUnavailableError("no installed kernel was found")
    if not system.is_live:
        return found[-1], None
    running = platform.uname()
    alike = [release for release in found if flavour(release) == flavour(running.release)]
    newest = (alike or found)[-1]
    return newest, newest == running.release and _is_build_current(system, running.release, running.version)


def _is_build_current(system: System, release: str, version: str) -> bool:
    """Debian keeps the release over security updates: then only the build tells them apart."""
    build = _DEBIAN_BUILD.search(version)
    package = installed(system, f"linux-image-{release}") if build else None
    return build is None or package is None or package.version == build[1]
