"""Compares watched files with their baseline (section `integrity`): which changed, and when that was detected."""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.collectors.tools.file_integrity_baseline import BaselineDamagedError, IntegrityBaseline, load, save
from device_agent.collectors.tools.file_integrity_scan import FileState, IntegrityScan, scan_files
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System
from device_agent.settings import IntegritySettings

_HOME_OF_ROOT: Final = "/root"
DEFAULT_PATHS: Final = (
    "/etc/anacrontab",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/cron.monthly",
    "/etc/cron.weekly",
    "/etc/crontab",
    "/etc/crontabs",
    "/etc/doas.conf",
    "/etc/doas.d",
    "/etc/dropbear",
    "/etc/group",
    "/etc/gshadow",
    "/etc/hosts",
    "/etc/init.d",
    "/etc/inittab",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/local.d",
    "/etc/network",
    "/etc/pam.d",
    "/etc/passwd",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/rc.d",
    "/etc/rc.local",
    "/etc/runlevels",
    "/etc/shadow",
    "/etc/ssh",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/systemd/system",
    "/etc/udev/rules.d",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/var/spool/cron",
    f"{_HOME_OF_ROOT}/.ssh",
)
FILE: Final = "integrity.json"
PREVIOUS_FILE: Final = "integrity.before.json"
LOCK: Final = "integrity.lock"
READ_ALL_SECONDS: Final = 86_400.0  # after this time all contents are read again, whatever the metadata says
_MIB: Final = 1024 * 1024


class IntegrityCollector:
    """Collects the `integrity` section and takes new baselines for the command `integrity.rebaseline`.

    Args:
        settings: of file integrity monitoring.
        state_dir: folder of the baseline.
        is_baseline_owner: whether it creates and updates the baseline, as the running agent does; others only compare.
        now: returns Unix time.
    """

    def __init__(
        self,
        settings: IntegritySettings,
        state_dir: Path,
        *,
        is_baseline_owner: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._roots = tuple(sorted("/" + path.strip("/") for path in settings.paths or DEFAULT_PATHS))
        self._path = state_dir / FILE
        self._previous_path = state_dir / PREVIOUS_FILE
        self._is_baseline_owner = is_baseline_owner
        self._now = now
        self._mutex = threading.Lock()
        self._last: tuple[float, Section] | None = None

    def __call__(self, system: System) -> Section:
        """Returns the section; the previous one until the configured interval has passed."""
        with self._mutex, self._exclusive_lock():
            now = self._now()
            if self._last is not None and 0 <= now - self._last[0] < self._settings.every:
                return self._last[1]
            section = self._compare(system, now)
            self._last = (now, section)
            return section

    def collect_now(self, system: System) -> Section:
        """Returns the section of a new scan."""
        with self._mutex:
            self._last = None
        return self(system)

    def rebaseline(self, system: System) -> None:
        """Takes the current state as the baseline and keeps the previous one for `restore_previous_baseline`.

        Raises:
            OSError: the baseline cannot be written.
        """
        with self._mutex, self._exclusive_lock():
            if self._path.exists():
                self._previous_path.write_bytes(self._path.read_bytes())
                self._previous_path.chmod(0o600)
            save(self._path, self._new_baseline(system, self._now()))
            self._last = None

    def restore_previous_baseline(self) -> bool:
        """Undoes the last `rebaseline`; returns False when there is no previous baseline."""
        with self._mutex, self._exclusive_lock():
            self._last = None
            if not self._previous_path.exists():
                return False
            self._previous_path.replace(self._path)
            return True

    def state(self) -> object:
        """Returns the time and the section of the last scan."""
        return self._last

    def restore(self, state: Any) -> None:
        """Restores what `state` returned."""
        self._last = None if state is None else (float(state[0]), Section(state[1]))

    @contextmanager
    def _exclusive_lock(self) -> Iterator[None]:
        """Serialises scans and commands, which run in different processes, so that no new baseline is overwritten."""
        folder = self._path.parent
        if not self._is_baseline_owner or not folder.is_dir():
            yield
            return
        with (folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _new_baseline(self, system: System, now: float) -> IntegrityBaseline:
        scan = self._scan(system, {})
        return IntegrityBaseline(_timestamp(now), self._roots, scan.files, scan.unread, read_all_at=now)

    def _scan(self, system: System, known: dict[str, FileState]) -> IntegrityScan:
        settings = self._settings
        return scan_files(system, self._roots, known, max_files=settings.max_files, max_bytes=settings.max_mib * _MIB)

    def _compare(self, system: System, now: float) -> Section:
        try:
            baseline = load(self._path)
        except BaselineDamagedError as e:
            raise FactsUnavailableError(
                f"the baseline {self._path} is damaged: {e}; check the file, then send integrity.rebaseline"
            ) from e
        except PermissionError as e:
            raise FactsUnavailableError("the baseline needs root") from e
        if baseline is None:
            if not self._is_baseline_owner:
                raise FactsUnavailableError("no baseline yet: the running agent takes one")
            baseline = self._new_baseline(system, now)
            save(self._path, baseline)
        is_full_read_due = not 0 <= now - baseline.read_all_at < READ_ALL_SECONDS
        scan = self._scan(system, {} if is_full_read_due else baseline.files)
        before = (dict(baseline.files), baseline.roots, dict(baseline.first_detected), baseline.read_all_at)
        if is_full_read_due:
            baseline.read_all_at = now
        self._add_new_paths(baseline, scan)
        changes = dict(_changes(baseline.files, scan))
        _record_detection(baseline, changes, _timestamp(now).isoformat())
        after = (baseline.files, baseline.roots, baseline.first_detected, baseline.read_all_at)
        if self._is_baseline_owner and before != after:
            save(self._path, baseline)
        return _section(baseline, scan, changes)

    def _add_new_paths(self, baseline: IntegrityBaseline, scan: IntegrityScan) -> None:
        """Adds files without an earlier state: newly configured, or unreadable when the baseline was taken."""
        new_roots = [root for root in self._roots if not _is_below(root, baseline.roots)]
        for path, current in scan.files.items():
            known = baseline.files.get(path)
            if known is None:
                if _is_below(path, new_roots) or (baseline.unread and not scan.unread):
                    baseline.files[path] = current
            elif known.kind == current.kind and (not known.sha256 or known.sha256 == current.sha256):
                # Same content: the new change key spares reading the file at each scan.
                updated = FileState(known.kind, current.sha256, known.mode, known.uid, known.gid, *current.change_key)
                if updated != known:
                    baseline.files[path] = updated
        baseline.unread = min(baseline.unread, scan.unread)
        if baseline.roots != self._roots:
            baseline.files = {path: state for path, state in baseline.files.items() if _is_below(path, self._roots)}
            baseline.roots = self._roots


def _is_below(path: str, roots: tuple[str, ...] | list[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _changes(known: dict[str, FileState], scan: IntegrityScan) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yields path, kind of change, and the change time of the file in nanoseconds (0: none)."""
    for path, current in scan.files.items():
        before = known.get(path)
        if before is None:
            yield path, ("added", current.mtime)
        elif before.kind != current.kind:
            yield path, ("kind", current.mtime)
        elif before.sha256 and current.sha256 and before.sha256 != current.sha256:
            yield path, ("content", current.mtime)
        elif (before.uid, before.gid) != (current.uid, current.gid):
            yield path, ("owner", current.ctime)
        elif before.mode != current.mode:
            yield path, ("mode", current.ctime)
    # A path that was not scanned or not readable was not removed.
    if scan.is_complete and not scan.unread:
        for path in known.keys() - scan.files.keys():
            yield path, ("removed", 0)


def _record_detection(baseline: IntegrityBaseline, changes: dict[str, tuple[str, int]], now: str) -> None:
    detected = baseline.first_detected
    baseline.first_detected = {
        path: known if (known := detected.get(path)) is not None and known[0] == change else (change, now)
        for path, (change, _) in changes.items()
    }


def _section(baseline: IntegrityBaseline, scan: IntegrityScan, changes: dict[str, tuple[str, int]]) -> Section:
    has_unhashed = any(state.kind == "file" and not state.sha256 for state in scan.files.values())
    section = SectionBuilder(
        baseline_at=baseline.taken_at.isoformat(),
        files=len(scan.files),
        changed=len(changes),
        unread=scan.unread,
        complete=scan.is_complete and not has_unhashed,
        roots=list(baseline.roots),
        changes=[
            {
                "path": path,
                "change": change,
                "seen_at": baseline.first_detected[path][1],
                "modified_at": _timestamp(time_ns / 1e9).isoformat() if time_ns > 0 else None,
            }
            for path, (change, time_ns) in sorted(changes.items())
        ],
    )
    return section.build()


def _timestamp(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):  # a file may have any time
        return datetime.fromtimestamp(0, UTC)
