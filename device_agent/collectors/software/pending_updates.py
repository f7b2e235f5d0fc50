"""Lists pending updates as apt, dnf, zypper, apk and opkg report them, and the security updates they distinguish."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.collectors.base import DAY_SECONDS
from device_agent.collectors.software import pending_apt
from device_agent.collectors.software.pending_model import PendingUpdate, PendingUpdates
from device_agent.collectors.software.pending_rpm import list_dnf, list_zypper, repository_metadata
from device_agent.collectors.software.sources import source_entries
from device_agent.errors import FactsUnavailableError
from device_agent.host.apt import lists_refreshed_at
from device_agent.host.execute import run
from device_agent.host.files import list_files
from device_agent.host.packages import package_manager
from device_agent.host.system import System

# With older package lists, "no pending updates" would be meaningless.
MAX_LISTS_AGE_DAYS: Final = 7
_SECONDS: Final = 50.0
_APK: Final = re.compile(r"(?P<name>\S+)-(?P<version>\d[^\s-]*-r\d+)")
_APK_BEFORE: Final = " [upgradable from: "
_REFRESH: Final = {
    "apt": "apt-get update",
    "dnf": "dnf makecache",
    "zypper": "zypper refresh",
    "apk": "apk update",
    "opkg": "opkg update",
}
_APK_CACHES: Final = ("/var/cache/apk", "/etc/apk/cache")
_OPKG_LISTS: Final = ("/var/opkg-lists", "/tmp/opkg-lists", "/var/lib/opkg/lists")  # noqa: S108 - OpenWrt's own path


def list_pending_updates(system: System, scheme: str, installed: Mapping[str, str]) -> PendingUpdates:
    """Asks the package manager for the pending updates.

    Args:
        system: the machine.
        scheme: of its packages.
        installed: version by name, for managers that list only the new version.

    Raises:
        FactsUnavailableError: the system is not the running machine.
        ExecuteError: the manager failed.
    """
    if scheme == "deb":
        return pending_apt.list_apt(system)
    if not system.is_live:
        raise FactsUnavailableError("pending updates can be listed on the running system only")
    if scheme == "rpm":
        is_zypper = package_manager(system, scheme) == "zypper"
        return list_zypper(system) if is_zypper else list_dnf(system, installed)
    if scheme == "apk":
        every_apk = apk_upgrades(run(["apk", "list", "--upgradable"], seconds=_SECONDS).stdout)
        return PendingUpdates(every_apk, None, reason="apk does not distinguish security updates")
    every_opkg = opkg_upgrades(run(["opkg", "list-upgradable"], seconds=_SECONDS).stdout)
    return PendingUpdates(every_opkg, None, reason="opkg does not distinguish security updates")


def require_recent_lists(system: System, scheme: str, now: float) -> None:
    """Checks the age of the package lists; `now` is Unix time.

    Raises:
        FactsUnavailableError: the lists of a source are missing or too old, or cannot be told.
    """
    manager = package_manager(system, scheme)
    program = _REFRESH[manager]
    if scheme == "deb":
        times = {"": lists_refreshed_at(system)}
    elif scheme == "rpm":
        times = {name: _modified(path) for name, path in repository_metadata(system, manager).items()}
    elif scheme == "apk":
        times = _apk_indexes(system)
    else:
        lists = {name: _opkg_list(system, name) for name in _feeds(system, scheme)}
        times = {name: _modified(path) for name, path in lists.items()}
    for name, refreshed_at in times.items():
        of_what = f" of {name}" if name and len(times) > 1 else ""
        if refreshed_at is None:
            raise FactsUnavailableError(f"the package lists{of_what} were never fetched: run {program}")
        if now - refreshed_at > MAX_LISTS_AGE_DAYS * DAY_SECONDS:
            day = time.strftime("%Y-%m-%d", time.gmtime(refreshed_at))
            raise FactsUnavailableError(f"the package lists{of_what} are of {day}: run {program}")


def why_security_is_unknown(system: System, pending: PendingUpdates, now: float) -> str:
    """Returns why the lists of the security sources do not tell the present; empty if they do."""
    return pending_apt.why_too_old(system, pending, now - MAX_LISTS_AGE_DAYS * DAY_SECONDS, now)


def _modified(path: Path | None) -> float | None:
    return path.stat().st_mtime if path is not None else None


def _feeds(system: System, scheme: str) -> list[str]:
    reading = source_entries(system, scheme)
    if reading.gaps:
        raise FactsUnavailableError(f"the package sources are not known: {reading.gaps[0].reason}")
    remote = [entry["name"] for entry in reading.value if not entry["url"].startswith(("/", "file:"))]
    if not remote:
        raise FactsUnavailableError("no package source is configured")
    return remote


def _apk_indexes(system: System) -> dict[str, float | None]:
    """Returns the times of as many indexes as there are sources; the names of the files do not tell the source."""
    feeds = _feeds(system, "apk")
    files = [file for folder in _APK_CACHES for file in list_files(system.path(folder), "APKINDEX*")]
    times = sorted((file.stat().st_mtime for file in files), reverse=True)
    return {name: times[number] if number < len(times) else None for number, name in enumerate(feeds)}


def _opkg_list(system: System, feed: str) -> Path | None:
    paths = (system.path(f"{folder}/{feed}") for folder in _OPKG_LISTS)
    return next((path for path in paths if path.is_file()), None)


def apk_upgrades(text: str) -> tuple[PendingUpdate, ...]:
    """Parses `apk list --upgradable`."""
    found = set()
    for line in text.splitlines():
        package, before, former = line.strip()[:1024].rpartition(_APK_BEFORE)
        new, old = _APK.fullmatch(package.partition(" ")[0]), former.removesuffix("]")
        if new and before and old != former and old.startswith(f"{new['name']}-") and not old.count(" "):
            found.add(PendingUpdate(new["name"], old.removeprefix(f"{new['name']}-"), new["version"]))
    return tuple(sorted(found))


def opkg_upgrades(text: str) -> tuple[PendingUpdate, ...]:
    """Parses `opkg list-upgradable` (name - old - new)."""
    parts = (line.split(" - ") for line in text.splitlines())
    return tuple(sorted({PendingUpdate(*map(str.strip, part)) for part in parts if len(part) == 3 and all(part)}))
