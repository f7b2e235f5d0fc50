"""Installed packages and pending updates (section `updates`), kernel state, and automatic installation."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from device_agent.collectors.base import DAY_SECONDS, MAX_AGE_DAYS, Section, SectionBuilder, days_between
from device_agent.collectors.software import inventory, kernels, unattended_upgrades
from device_agent.collectors.software.pending_model import PendingUpdate, PendingUpdates
from device_agent.collectors.software.pending_updates import (
    list_pending_updates,
    require_recent_lists,
    why_security_is_unknown,
)
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import write_whole
from device_agent.host.packages import package_manager, require_package_scheme, why_updates_are_hidden
from device_agent.host.system import System

_PENDING_FIELDS: Final = ("pending", "security_pending", "oldest_security_days", "seen_security_days")
_SEEN_FILE: Final = "pending-updates.json"
_MAX_SEEN_BYTES: Final = 4 * 1024 * 1024
_QUERY_AGAIN_SECONDS: Final = 6 * 3600.0  # even without a change: a hold may end, a phased update begin
_DEPENDS_ON: Final = (
    *("/var/lib/dpkg/status", "/var/lib/apt/lists", "/var/lib/apt/lists/partial", "/var/lib/apt/extended_states"),
    *("/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/preferences", "/etc/apt/preferences.d"),
    *("/etc/apt/apt.conf", "/etc/apt/apt.conf.d", "/var/lib/rpm", "/usr/lib/sysimage/rpm", "/etc/yum.repos.d"),
    *("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite", "/var/cache/dnf", "/var/cache/libdnf5"),
    *("/lib/apk/db/installed", "/etc/apk/world", "/etc/apk/repositories", "/var/cache/apk"),
    *("/usr/lib/opkg/status", "/etc/opkg", "/var/opkg-lists", "/var/lib/opkg/status", "/var/lib/opkg/lists"),
)
# The programs that write /run/reboot-required on Debian and Ubuntu; without them, a missing file means nothing.
_REBOOT_MARKERS: Final = (
    "/usr/share/update-notifier/notify-reboot-required",
    "/etc/kernel/postinst.d/unattended-upgrades",
)


_CachedQuery = tuple[str, float, PendingUpdates]
"""Cache key, Unix time of the query, and its result."""

_CACHE: Final[TypeAdapter[_CachedQuery | None]] = TypeAdapter(_CachedQuery | None)


class UpdatesCollector:
    """Collects the `updates` section.

    Args:
        state_dir: stores the day on which each update was first seen; without it that age is not reported.
        clock: returns Unix time.
    """

    def __init__(self, state_dir: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._cached: _CachedQuery | None = None

    def state(self) -> object:
        """Returns the last query of the package manager."""
        return _CACHE.dump_python(self._cached, mode="json")

    def restore(self, state: Any) -> None:
        """Restores what `state` returned."""
        self._cached = _CACHE.validate_python(state)

    def __call__(self, system: System) -> Section:
        """Returns the section; missing facts are explained in its gaps."""
        scheme = require_package_scheme(system)
        now = self._clock()
        section = SectionBuilder(manager=package_manager(system, scheme))
        versions: dict[str, str] = {}
        with section.capture("installed", "installed_count", "installed_digest"):
            reading = inventory.packages(system, scheme)
            versions = {package.name: package.version for package in reading.value}
            _add_installed(section, reading.value)
            section.add_gaps(reading.gaps, "installed", "installed_count", "installed_digest")
        with section.capture("unattended"):
            section.set(unattended=unattended_upgrades.is_unattended(system, scheme))
        is_current: bool | None = None
        with section.capture("kernel_current"):
            newest, is_current = kernels.newest_and_current(system)
            section.set(kernel_newest=newest, kernel_current=is_current)
        if system.is_image:
            section.gap("kernel_current", "reboot_required", reason="needs a living system: the running kernel")
        else:
            section.set(reboot_required=_reboot_required(system, is_current))
        with section.capture(*_PENDING_FIELDS):
            if hidden := why_updates_are_hidden(system, scheme):
                raise FactsUnavailableError(hidden)
            pending = self._query_manager(system, scheme, versions, now)
            if reason := why_security_is_unknown(system, pending, now):
                pending = replace(pending, security=None, reason=reason)
            self.add_pending(section, pending, now)
        return section.build()

    def _query_manager(self, system: System, scheme: str, versions: Mapping[str, str], now: float) -> PendingUpdates:
        """Returns the pending updates, cached until the manager's lists or settings or the packages change."""
        key = _cache_key(system, scheme)
        system.require_living("pending updates")
        require_recent_lists(system, scheme, now)
        if self._cached is not None and self._cached[0] == key and 0 <= now - self._cached[1] < _QUERY_AGAIN_SECONDS:
            return self._cached[2]
        updates = list_pending_updates(system, scheme, versions)
        self._cached = (key, now, updates)
        return updates

    def add_pending(self, section: SectionBuilder, updates: PendingUpdates, now: float) -> None:
        """Adds the counts and ages of the pending updates at Unix time `now`."""
        urgent = sorted({update.name for update in updates.security or ()})
        others = sorted({update.name for update in updates.all}.difference(urgent))
        section.set(pending=len(updates.all), pending_names=[*urgent, *others])
        if updates.hidden:
            section.gap("pending", "pending_names", reason=updates.hidden)
        if updates.security is None:
            section.gap(*_PENDING_FIELDS[1:], reason=updates.reason)
            return
        packages = [
            {"name": update.name, "installed": update.old, "candidate": update.new} for update in updates.security
        ]
        section.set(security_pending=len(updates.security), packages=packages)
        if not updates.security:
            return
        if updates.oldest is not None:
            section.set(oldest_security_days=_age(updates.oldest.timestamp(), now))
        else:
            section.gap("oldest_security_days", reason=updates.reason or "no update has a date")
        if self._state_dir is not None and self._state_dir.is_dir():
            with section.capture("seen_security_days"):
                first = _first_seen(self._state_dir / _SEEN_FILE, updates.security, int(now // DAY_SECONDS))
                section.set(seen_security_days=_age(first * DAY_SECONDS, now))


def _cache_key(system: System, scheme: str) -> str:
    """Returns a key of the times and sizes of all files that the list of pending updates depends on."""
    states: list[tuple[int, int] | None] = []
    for path in _DEPENDS_ON:
        try:
            state = system.path(path).stat()
        except OSError:
            states.append(None)
        else:
            states.append((state.st_mtime_ns, state.st_size))
    return ascii((str(system.root), scheme, states))


def _age(earlier: float, now: float) -> int:
    return min(max(0, days_between(earlier, now)), MAX_AGE_DAYS)


def _add_installed(section: SectionBuilder, packages: list[inventory.InventoryPackage]) -> None:
    lines = [str(package) for package in packages]
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    section.set(installed_count=len(lines), installed_digest=f"sha256:{digest.hexdigest()}", installed=lines)


def _reboot_required(system: System, is_kernel_current: bool | None) -> bool | None:
    if system.path("/run/reboot-required").exists() or system.path("/var/run/reboot-required").exists():
        return True
    if is_kernel_current is False:
        return True
    return False if any(system.path(marker).exists() for marker in _REBOOT_MARKERS) else None


def _first_seen(path: Path, updates: Iterable[PendingUpdate], today: int) -> int:
    """Returns the day on which the oldest of the updates was first seen; the file keeps the pending ones only."""
    known = _read_seen(path)
    names = [f"{update.name} {update.new}" for update in updates]
    current = {name: min(known.get(name, today), today) for name in names}
    if current != known:
        write_whole(path, path.with_name(f".{path.name}.new"), json.dumps(current, sort_keys=True).encode(), 0o600)
    return min(current.values())


def _read_seen(path: Path) -> dict[str, int]:
    try:
        with path.open("rb") as file:
            known = json.loads(file.read(_MAX_SEEN_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}  # malformed: counting restarts; the age is then too low, never too high
    if not isinstance(known, dict):
        return {}
    return {name: day for name, day in known.items() if isinstance(day, int) and day >= 0}
