"""What is installed, which updates wait as the package manager would install them, and whether somebody cares."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.crypto.keys import days_between
from device_agent.collectors.reading import GapRecorder
from device_agent.collectors.software import inventory, kernels, unattended_upgrades
from device_agent.collectors.software.pending_updates import PendingUpdate, PendingUpdates, check_lists, pending
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import write_whole
from device_agent.host.packages import manager_of, scheme_of
from device_agent.host.system import System

_SEEN_FILE: Final = "pending-updates.json"
_MAX_SEEN_BYTES: Final = 4 * 1024 * 1024
_MAX_DAYS: Final = 36_500
_DAY: Final = 86_400
_ASK_AGAIN_SECONDS: Final = 6 * 3600.0  # even when nothing changed: a hold may end, a phased update begin
_DEPENDS_ON: Final = (
    *("/var/lib/dpkg/status", "/var/lib/apt/lists", "/var/lib/apt/lists/partial", "/var/lib/apt/extended_states"),
    *("/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/preferences", "/etc/apt/preferences.d"),
    *("/etc/apt/apt.conf", "/etc/apt/apt.conf.d", "/var/lib/rpm", "/usr/lib/sysimage/rpm", "/etc/yum.repos.d"),
    *("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite", "/var/cache/dnf", "/var/cache/libdnf5"),
    *("/lib/apk/db/installed", "/etc/apk/world", "/etc/apk/repositories", "/var/cache/apk"),
    *("/usr/lib/opkg/status", "/etc/opkg", "/var/opkg-lists"),
)
# Whoever marks a needed reboot on Debian and Ubuntu; without either, a missing mark says nothing.
_REBOOT_MARKERS: Final = (
    "/usr/share/update-notifier/notify-reboot-required",
    "/etc/kernel/postinst.d/unattended-upgrades",
)


class UpdatesCollector:
    """Finds the `updates` section.

    Args:
        state_dir: where it is kept since when an update was seen; without it that is not told.
        clock: seconds since the epoch.
    """

    def __init__(self, state_dir: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._asked: tuple[tuple[object, ...], float, PendingUpdates] | None = None

    def remembered(self) -> object:
        """What the manager said, and of what state of its files."""
        return self._asked

    def recall(self, memory: Any) -> None:
        """Go on from there."""
        self._asked = memory

    def __call__(self, system: System) -> Section:
        """The `updates` section; what the manager does not tell is named in `problems`."""
        scheme = scheme_of(system)
        if scheme is None:
            raise FactsUnavailableError("no known package manager")
        gaps = GapRecorder()
        now = self._clock()
        section: dict[str, Any] = {"state": "ok", "manager": manager_of(scheme)}
        versions: dict[str, str] = {}
        with gaps.told("installed"):
            found = inventory.packages(system, scheme)
            versions = {package.name: package.version for package in found}
            _add_installed(section, found)
        with gaps.told("unattended"):
            section["unattended"] = unattended_upgrades.is_unattended(system, scheme)
        with gaps.told("kernel"):
            section["kernel_newest"], section["kernel_current"] = kernels.newest_and_current(system)
        section["reboot_required"] = _reboot_required(system, section.get("kernel_current"))
        with gaps.told("security_pending"):
            self._add_pending(section, self._ask(system, scheme, versions, now), now, gaps)
        section["problems"] = gaps.listed()
        return section

    def _ask(self, system: System, scheme: str, versions: Mapping[str, str], now: float) -> PendingUpdates:
        """What waits; the manager itself is asked when its lists, its settings or what is installed changed."""
        shape = (system.root, scheme, *_shape(system))
        check_lists(system, scheme, now)
        if self._asked is not None and self._asked[0] == shape and 0 <= now - self._asked[1] < _ASK_AGAIN_SECONDS:
            return self._asked[2]
        found = pending(system, scheme, versions)
        self._asked = (shape, now, found)
        return found

    def _add_pending(self, section: dict[str, Any], found: PendingUpdates, now: float, gaps: GapRecorder) -> None:
        section["pending"] = len(found.every)
        if found.security is None:
            gaps.add("security_pending", found.reason)
            return
        section["security_pending"] = len(found.security)
        section["packages"] = [{"name": one.name, "installed": one.old, "candidate": one.new} for one in found.security]
        if not found.security:
            return
        if found.oldest is not None:
            section["oldest_security_days"] = _days(found.oldest.timestamp(), now)
        else:
            gaps.add("oldest_security_days", found.reason or "no update has a date")
        if self._state_dir is not None and self._state_dir.is_dir():
            with gaps.told("seen_security_days"):
                first = _first_seen(self._state_dir / _SEEN_FILE, found.security, int(now // _DAY))
                section["seen_security_days"] = _days(first * _DAY, now)


def collect(system: System) -> Section:
    """The `updates` section without a memory."""
    return UpdatesCollector()(system)


def _shape(system: System) -> list[tuple[int, int] | None]:
    """Times and sizes of everything that the answer to "what waits" depends on."""
    found: list[tuple[int, int] | None] = []
    for place in _DEPENDS_ON:
        try:
            state = system.path(place).stat()
        except OSError:
            found.append(None)
        else:
            found.append((state.st_mtime_ns, state.st_size))
    return found


def _days(earlier: float, now: float) -> int:
    return min(max(0, days_between(earlier, now)), _MAX_DAYS)


def _add_installed(section: dict[str, Any], found: list[inventory.InventoryPackage]) -> None:
    lines = [str(package) for package in found]
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    section["installed_count"] = len(lines)
    section["installed_digest"] = f"sha256:{digest.hexdigest()}"
    section["installed"] = lines


def _reboot_required(system: System, is_kernel_current: bool | None) -> bool | None:
    if system.path("/run/reboot-required").exists() or system.path("/var/run/reboot-required").exists():
        return True
    if is_kernel_current is False:
        return True
    return False if any(system.path(place).exists() for place in _REBOOT_MARKERS) else None


def _first_seen(path: Path, waiting: Iterable[PendingUpdate], today: int) -> int:
    """The day on which the oldest of these was first seen; what waits no longer is forgotten."""
    known = _read_seen(path)
    now = {f"{one.name} {one.new}": min(known.get(f"{one.name} {one.new}", today), today) for one in waiting}
    if now != known:
        write_whole(path, path.with_name(f".{path.name}.new"), json.dumps(now, sort_keys=True).encode(), 0o600)
    return min(now.values())


def _read_seen(path: Path) -> dict[str, int]:
    try:
        with path.open("rb") as file:
            known = json.loads(file.read(_MAX_SEEN_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}  # damaged: counting starts again, and the age is told too low, never too high
    if not isinstance(known, dict):
        return {}
    return {name: day for name, day in known.items() if isinstance(day, int) and day >= 0}
