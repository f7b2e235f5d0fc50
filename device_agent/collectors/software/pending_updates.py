"""Which updates wait, as apt, dnf, apk and opkg themselves say it; which of them are for security, where they tell."""

import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.apt import AptUpgrade, apt_get, apt_list, listed, lists_refreshed_at, upgrades
from device_agent.host.execute import run
from device_agent.host.system import System

# Older lists do not know of newer updates, so that "nothing pending" would mean nothing.
MAX_LISTS_AGE_DAYS: Final = 7
_SECONDS: Final = 50.0
_DAY: Final = 86_400
_UPDATES_WAIT: Final = 100  # exit status of `dnf check-update`
_NEVRA: Final = re.compile(r"^(?P<name>[^\s:]{1,200})-(?P<evr>(?:\d+:)?[^-\s:]+-[^-\s]+)\.(?P<arch>[a-z0-9_]+)$")
_DATE: Final = re.compile(r"^\d{4}-\d\d-\d\d$")
_UPDATED: Final = re.compile(r"^\s*(?:Updated|Issued)\s*:\s*(\d{4}-\d\d-\d\d)", re.MULTILINE)
_APK: Final = re.compile(r"^(?P<name>\S+)-(?P<new>\d\S*-r\d+) .*\[upgradable from: (?P=name)-(?P<old>\S+)\]$")
_INDEXES: Final = {
    "rpm": ("/var/cache/dnf", "*/repodata/repomd.xml", "/var/cache/libdnf5", "*/repodata/repomd.xml"),
    "apk": ("/var/cache/apk", "APKINDEX*", "/etc/apk/cache", "APKINDEX*"),
    "opkg": ("/var/opkg-lists", "*", "/tmp/opkg-lists", "*"),  # noqa: S108 - where OpenWrt keeps them
}
_REFRESH: Final = {"deb": "apt-get update", "rpm": "dnf makecache", "apk": "apk update", "opkg": "opkg update"}


@dataclass(frozen=True, slots=True, order=True)
class PendingUpdate:
    """An update that waits."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class PendingUpdates:
    """What waits: every update, those for security (None: the manager does not tell them apart), and since when."""

    every: tuple[PendingUpdate, ...]
    security: tuple[PendingUpdate, ...] | None
    oldest: datetime | None = None
    reason: str = field(default="")


def pending(system: System, scheme: str, installed: Mapping[str, str]) -> PendingUpdates:
    """What waits now.

    Args:
        system: the machine.
        scheme: of its packages.
        installed: version by name, for managers that tell only the new one.

    Raises:
        FactsUnavailableError: the machine is not the running one.
        ExecuteError: the manager failed.
    """
    if scheme == "deb":
        found = _apt(system)
        every = {PendingUpdate(one.name, one.old, one.new) for one in found}
        security = {PendingUpdate(one.name, one.old, one.new) for one in found if one.is_security}
        return PendingUpdates(
            tuple(sorted(every)), tuple(sorted(security)), reason="apt does not keep the age of an update"
        )
    if not system.is_live:
        raise FactsUnavailableError("only the running system can be asked for its updates")
    if scheme == "rpm":
        return _dnf(installed)
    if scheme == "apk":
        every_apk = apk_upgrades(run(["apk", "list", "--upgradable"], seconds=_SECONDS).out)
        return PendingUpdates(every_apk, None, reason="apk does not tell security updates from others")
    every_opkg = opkg_upgrades(run(["opkg", "list-upgradable"], seconds=_SECONDS).out)
    return PendingUpdates(every_opkg, None, reason="opkg does not tell security updates from others")


def _apt(system: System) -> tuple[AptUpgrade, ...]:
    if shutil.which("apt"):
        return listed(run(apt_list(system), seconds=_SECONDS).out)
    return upgrades(run(apt_get(system, "-s", "-o", "Debug::NoLocking=1", "dist-upgrade"), seconds=_SECONDS).out)


def _refreshed_at(system: System, scheme: str) -> float | None:
    if scheme == "deb":
        return lists_refreshed_at(system)
    places = _INDEXES[scheme]
    times = [
        path.stat().st_mtime
        for folder, pattern in zip(places[::2], places[1::2], strict=True)
        for path in system.path(folder).glob(pattern)
        if path.is_file()
    ]
    return max(times, default=None)


def check_lists(system: System, scheme: str, now: float) -> None:
    """See that the lists tell the present.

    Raises:
        FactsUnavailableError: they are missing or too old.
    """
    refreshed, program = _refreshed_at(system, scheme), _REFRESH[scheme]
    if refreshed is None:
        raise FactsUnavailableError(f"the package lists were never fetched: run {program}")
    if now - refreshed > MAX_LISTS_AGE_DAYS * _DAY:
        day = time.strftime("%Y-%m-%d", time.gmtime(refreshed))
        raise FactsUnavailableError(f"the package lists are of {day}: run {program}")


def _dnf(installed: Mapping[str, str]) -> PendingUpdates:
    ask = ["dnf", "-q", "-C"]
    listed = run([*ask, "updateinfo", "list", "--security", "--updates"], seconds=_SECONDS).out
    waiting = run([*ask, "check-update"], seconds=_SECONDS, ok=frozenset({0, _UPDATES_WAIT})).out
    security, oldest = dnf_security(listed, installed)
    if security and oldest is None:
        oldest = _oldest(
            _UPDATED.findall(run([*ask, "updateinfo", "info", "--security", "--updates"], seconds=_SECONDS).out)
        )
    return PendingUpdates(dnf_updates(waiting, installed), security, oldest)


def dnf_security(text: str, installed: Mapping[str, str]) -> tuple[tuple[PendingUpdate, ...], datetime | None]:
    """Read `updateinfo list --security --updates`; the dates are in what version 5 says."""
    found: dict[str, PendingUpdate] = {}
    dates = []
    for words in map(str.split, text.splitlines()):
        match = next((match for word in words[1:] if (match := _NEVRA.match(word))), None)
        if match is not None:
            name = match["name"]
            found[name] = PendingUpdate(name, installed.get(name, ""), match["evr"])
            dates += [word for word in words if _DATE.match(word)]
    return tuple(sorted(found.values())), _oldest(dates)


def _oldest(dates: Iterable[str]) -> datetime | None:
    known = []
    for text in dates:
        try:
            known.append(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC))
        except ValueError:
            continue
    return min(known, default=None)


def dnf_updates(text: str, installed: Mapping[str, str]) -> tuple[PendingUpdate, ...]:
    """Read `check-update`: name.arch, version, repository; what obsoletes what comes after them and does not count."""
    found = set()
    for line in text.splitlines():
        if line.startswith("Obsoleting"):
            break
        words = line.split()
        name, dot, _ = words[0].rpartition(".") if words else ("", "", "")
        if len(words) == 3 and dot and "-" in words[1]:
            found.add(PendingUpdate(name, installed.get(name, ""), words[1]))
    return tuple(sorted(found))


def apk_upgrades(text: str) -> tuple[PendingUpdate, ...]:
    """Read `apk list --upgradable`."""
    matches = (_APK.match(line.strip()[:1024]) for line in text.splitlines())
    return tuple(sorted({PendingUpdate(match["name"], match["old"], match["new"]) for match in matches if match}))


def opkg_upgrades(text: str) -> tuple[PendingUpdate, ...]:
    """Read `opkg list-upgradable`: name - old - new."""
    parts = (line.split(" - ") for line in text.splitlines())
    return tuple(sorted({PendingUpdate(*map(str.strip, part)) for part in parts if len(part) == 3 and all(part)}))
