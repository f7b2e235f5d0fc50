"""Lists pending updates as apt, dnf, apk and opkg report them, and the security updates where they distinguish them."""

import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from device_agent.collectors.base import DAY_SECONDS
from device_agent.errors import FactsUnavailableError
from device_agent.host.apt import AptUpgrade, apt_get, apt_list, listed, lists_refreshed_at, upgrades
from device_agent.host.execute import run
from device_agent.host.system import System

# With older package lists, "no pending updates" would be meaningless.
MAX_LISTS_AGE_DAYS: Final = 7
_SECONDS: Final = 50.0
_UPDATES_PENDING: Final = 100  # exit status of `dnf check-update`
_NEVRA: Final = re.compile(r"^(?P<name>[^\s:]{1,200})-(?P<evr>(?:\d+:)?[^-\s:]+-[^-\s]+)\.(?P<arch>[a-z0-9_]+)$")
_DATE: Final = re.compile(r"^\d{4}-\d\d-\d\d$")
_UPDATED: Final = re.compile(r"^\s*(?:Updated|Issued)\s*:\s*(\d{4}-\d\d-\d\d)", re.MULTILINE)
_APK: Final = re.compile(r"^(?P<name>\S+)-(?P<new>\d\S*-r\d+) .*\[upgradable from: (?P=name)-(?P<old>\S+)\]$")
_INDEXES: Final = {
    "rpm": ("/var/cache/dnf", "*/repodata/repomd.xml", "/var/cache/libdnf5", "*/repodata/repomd.xml"),
    "apk": ("/var/cache/apk", "APKINDEX*", "/etc/apk/cache", "APKINDEX*"),
    "opkg": ("/var/opkg-lists", "*", "/tmp/opkg-lists", "*"),  # noqa: S108 - OpenWrt's own path
}
_REFRESH: Final = {"deb": "apt-get update", "rpm": "dnf makecache", "apk": "apk update", "opkg": "opkg update"}


@dataclass(frozen=True, slots=True, order=True)
class PendingUpdate:
    """A package with its installed and its available version."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class PendingUpdates:
    """All pending updates and the security updates.

    `security` is None if the manager does not distinguish them, `oldest` the date of the oldest security update;
    `reason` explains whichever of both is missing.
    """

    all: tuple[PendingUpdate, ...]
    security: tuple[PendingUpdate, ...] | None
    oldest: datetime | None = None
    reason: str = ""


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
        upgrades = _apt(system)
        every = {PendingUpdate(upgrade.name, upgrade.old, upgrade.new) for upgrade in upgrades}
        security = {
            PendingUpdate(upgrade.name, upgrade.old, upgrade.new) for upgrade in upgrades if upgrade.is_security
        }
        return PendingUpdates(
            tuple(sorted(every)), tuple(sorted(security)), reason="apt does not record the age of an update"
        )
    if not system.is_live:
        raise FactsUnavailableError("pending updates can be listed on the running system only")
    if scheme == "rpm":
        return _dnf(installed)
    if scheme == "apk":
        every_apk = apk_upgrades(run(["apk", "list", "--upgradable"], seconds=_SECONDS).stdout)
        return PendingUpdates(every_apk, None, reason="apk does not distinguish security updates")
    every_opkg = opkg_upgrades(run(["opkg", "list-upgradable"], seconds=_SECONDS).stdout)
    return PendingUpdates(every_opkg, None, reason="opkg does not distinguish security updates")


def _apt(system: System) -> tuple[AptUpgrade, ...]:
    if shutil.which("apt"):
        return listed(run(apt_list(system), seconds=_SECONDS).stdout)
    return upgrades(run(apt_get(system, "-s", "-o", "Debug::NoLocking=1", "dist-upgrade"), seconds=_SECONDS).stdout)


def _refreshed_at(system: System, scheme: str) -> float | None:
    if scheme == "deb":
        return lists_refreshed_at(system)
    indexes = _INDEXES[scheme]
    times = [
        path.stat().st_mtime
        for folder, pattern in zip(indexes[::2], indexes[1::2], strict=True)
        for path in system.path(folder).glob(pattern)
        if path.is_file()
    ]
    return max(times, default=None)


def require_recent_lists(system: System, scheme: str, now: float) -> None:
    """Checks the age of the package lists; `now` is Unix time.

    Raises:
        FactsUnavailableError: the lists are missing or too old.
    """
    refreshed_at, program = _refreshed_at(system, scheme), _REFRESH[scheme]
    if refreshed_at is None:
        raise FactsUnavailableError(f"the package lists were never fetched: run {program}")
    if now - refreshed_at > MAX_LISTS_AGE_DAYS * DAY_SECONDS:
        day = time.strftime("%Y-%m-%d", time.gmtime(refreshed_at))
        raise FactsUnavailableError(f"the package lists are of {day}: run {program}")


def _dnf(installed: Mapping[str, str]) -> PendingUpdates:
    dnf = ["dnf", "-q", "-C"]
    advisories = run([*dnf, "updateinfo", "list", "--security", "--updates"], seconds=_SECONDS).stdout
    updates = run([*dnf, "check-update"], seconds=_SECONDS, ok_statuses=frozenset({0, _UPDATES_PENDING})).stdout
    security, oldest = dnf_security(advisories, installed)
    if security and oldest is None:
        details = run([*dnf, "updateinfo", "info", "--security", "--updates"], seconds=_SECONDS).stdout
        oldest = _oldest_advisory(_UPDATED.findall(details))
    return PendingUpdates(dnf_updates(updates, installed), security, oldest)


def dnf_security(text: str, installed: Mapping[str, str]) -> tuple[tuple[PendingUpdate, ...], datetime | None]:
    """Parses `updateinfo list --security --updates`; only dnf 5 prints dates."""
    updates: dict[str, PendingUpdate] = {}
    dates = []
    for fields in map(str.split, text.splitlines()):
        match = next((match for field in fields[1:] if (match := _NEVRA.match(field))), None)
        if match is not None:
            name = match["name"]
            updates[name] = PendingUpdate(name, installed.get(name, ""), match["evr"])
            dates += [field for field in fields if _DATE.match(field)]
    return tuple(sorted(updates.values())), _oldest_advisory(dates)


def _oldest_advisory(dates: Iterable[str]) -> datetime | None:
    parsed = []
    for text in dates:
        try:
            parsed.append(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC))
        except ValueError:
            continue
    return min(parsed, default=None)


def dnf_updates(text: str, installed: Mapping[str, str]) -> tuple[PendingUpdate, ...]:
    """Parses `check-update` (name.arch, version, repository) up to the list of obsoleted packages."""
    updates = set()
    for line in text.splitlines():
        if line.startswith("Obsoleting"):
            break
        fields = line.split()
        name, dot, _ = fields[0].rpartition(".") if fields else ("", "", "")
        if len(fields) == 3 and dot and "-" in fields[1]:
            updates.add(PendingUpdate(name, installed.get(name, ""), fields[1]))
    return tuple(sorted(updates))


def apk_upgrades(text: str) -> tuple[PendingUpdate, ...]:
    """Parses `apk list --upgradable`."""
    matches = (_APK.match(line.strip()[:1024]) for line in text.splitlines())
    return tuple(sorted({PendingUpdate(match["name"], match["old"], match["new"]) for match in matches if match}))


def opkg_upgrades(text: str) -> tuple[PendingUpdate, ...]:
    """Parses `opkg list-upgradable` (name - old - new)."""
    parts = (line.split(" - ") for line in text.splitlines())
    return tuple(sorted({PendingUpdate(*map(str.strip, part)) for part in parts if len(part) == 3 and all(part)}))
