"""Watched files compared with their baseline: what changed, and when that was noticed."""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.tools.file_integrity_baseline import BaselineDamagedError, IntegrityBaseline, load, save
from device_agent.collectors.tools.file_integrity_scan import FileState, IntegrityScan, look
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System
from device_agent.settings import IntegritySettings

USUAL: Final = (
    "/etc/cron.d",
    "/etc/crontab",
    "/etc/group",
    "/etc/hosts",
    "/etc/init.d",
    "/etc/inittab",
    "/etc/ld.so.preload",
    "/etc/pam.d",
    "/etc/passwd",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/rc.local",
    "/etc/ssh",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/systemd/system",
    "/usr/local/bin",
    "/usr/local/sbin",
)
FILE: Final = "integrity.json"
BEFORE: Final = "integrity.before.json"
LOCK: Final = "integrity.lock"
READ_ALL_SECONDS: Final = 86_400.0  # contents are read again after this time, whatever the metadata says
_MIB: Final = 1024 * 1024


class IntegrityCollector:
    """The collector of the `integrity` section, and what the command `integrity.rebaseline` changes."""

    def __init__(
        self, settings: IntegritySettings, state_dir: Path, *, is_keeper: bool, now: Callable[[], float] = time.time
    ) -> None:
        """`is_keeper` is the running agent, which takes and keeps the baseline; others only compare."""
        self._settings = settings
        self._roots = tuple(sorted("/" + path.strip("/") for path in settings.paths or USUAL))
        self._path = state_dir / FILE
        self._before = state_dir / BEFORE
        self._is_keeper = is_keeper
        self._now = now
        self._mutex = threading.Lock()
        self._last: tuple[float, Section] | None = None

    def __call__(self, system: System) -> Section:
        """The `integrity` section; an earlier one while it is not yet time to look again."""
        with self._mutex, self._alone():
            now = self._now()
            if self._last is not None and 0 <= now - self._last[0] < self._settings.every:
                return self._last[1]
            section = self._compare(system, now)
            self._last = (now, section)
            return section

    def changes(self, system: System) -> Section:
        """The section as it is this moment."""
        with self._mutex:
            self._last = None
        return self(system)

    def rebaseline(self, system: System) -> None:
        """Take everything as it is now for good; `restore` goes back.

        Raises:
            OSError: the baseline cannot be written.
        """
        with self._mutex, self._alone():
            if self._path.exists():
                self._before.write_bytes(self._path.read_bytes())
                self._before.chmod(0o600)
            save(self._path, self._take(system, self._now()))
            self._last = None

    def restore(self) -> bool:
        """Take the baseline before the last `rebaseline` again; whether there was one."""
        with self._mutex, self._alone():
            self._last = None
            if not self._before.exists():
                return False
            self._before.replace(self._path)
            return True

    def remembered(self) -> object:
        """The section, and when it was found."""
        return self._last

    def recall(self, memory: Any) -> None:
        """Go on from there."""
        self._last = memory

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Scans and commands are processes of their own: a baseline that one takes must not be lost by the other."""
        folder = self._path.parent
        if not self._is_keeper or not folder.is_dir():
            yield
            return
        with (folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _take(self, system: System, now: float) -> IntegrityBaseline:
        seen = self._look(system, {})
        return IntegrityBaseline(_at(now), self._roots, seen.files, seen.unread, read_all_at=now)

    def _look(self, system: System, known: dict[str, FileState]) -> IntegrityScan:
        settings = self._settings
        return look(system, self._roots, known, max_files=settings.max_files, max_bytes=settings.max_mib * _MIB)

    def _compare(self, system: System, now: float) -> Section:
        try:
            baseline = load(self._path)
        except BaselineDamagedError as e:
            raise FactsUnavailableError(
                f"the baseline {self._path} is damaged: {e}; look at it, then send integrity.rebaseline"
            ) from e
        except PermissionError as e:
            raise FactsUnavailableError("the baseline needs root") from e
        if baseline is None:
            if not self._is_keeper:
                raise FactsUnavailableError("no baseline yet: the running agent takes one")
            baseline = self._take(system, now)
            save(self._path, baseline)
        is_to_read_all = not 0 <= now - baseline.read_all_at < READ_ALL_SECONDS
        seen = self._look(system, {} if is_to_read_all else baseline.files)
        before = (dict(baseline.files), baseline.roots, dict(baseline.noticed), baseline.read_all_at)
        if is_to_read_all:
            baseline.read_all_at = now
        self._adopt(baseline, seen)
        found = dict(_changes(baseline.files, seen))
        _notice(baseline, found, _at(now).isoformat())
        if self._is_keeper and before != (baseline.files, baseline.roots, baseline.noticed, baseline.read_all_at):
            save(self._path, baseline)
        return _section(baseline, seen, found)

    def _adopt(self, baseline: IntegrityBaseline, seen: IntegrityScan) -> None:
        """Take in what has no earlier state: newly watched by the configuration, or not readable before."""
        fresh = [root for root in self._roots if not _is_below(root, baseline.roots)]
        for path, now in seen.files.items():
            was = baseline.files.get(path)
            if was is None:
                if _is_below(path, fresh) or (baseline.unread and not seen.unread):
                    baseline.files[path] = now
            elif was.kind == now.kind and (not was.sha256 or was.sha256 == now.sha256):
                # The stamp moves on with the same content, so that it is not read again each time.
                stamp = FileState(was.kind, now.sha256, was.mode, was.uid, was.gid, *now.stamp)
                if stamp != was:
                    baseline.files[path] = stamp
        baseline.unread = min(baseline.unread, seen.unread)
        if baseline.roots != self._roots:
            baseline.files = {path: one for path, one in baseline.files.items() if _is_below(path, self._roots)}
            baseline.roots = self._roots


def _is_below(path: str, roots: tuple[str, ...] | list[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _changes(before: dict[str, FileState], seen: IntegrityScan) -> Iterator[tuple[str, tuple[str, int]]]:
    """Path, what kind of change, and the file's own time of it in nanoseconds (0: none)."""
    for path, now in seen.files.items():
        was = before.get(path)
        if was is None:
            yield path, ("added", now.mtime)
        elif was.kind != now.kind:
            yield path, ("kind", now.mtime)
        elif was.sha256 and now.sha256 and was.sha256 != now.sha256:
            yield path, ("content", now.mtime)
        elif (was.uid, was.gid) != (now.uid, now.gid):
            yield path, ("owner", now.ctime)
        elif was.mode != now.mode:
            yield path, ("mode", now.ctime)
    # What was not looked at, or could not be, is not gone.
    if seen.is_complete and not seen.unread:
        for path in before.keys() - seen.files.keys():
            yield path, ("removed", 0)


def _notice(baseline: IntegrityBaseline, found: dict[str, tuple[str, int]], now: str) -> None:
    baseline.noticed = {
        path: old if (old := baseline.noticed.get(path)) is not None and old[0] == what else (what, now)
        for path, (what, _) in found.items()
    }


def _section(baseline: IntegrityBaseline, seen: IntegrityScan, found: dict[str, tuple[str, int]]) -> dict[str, Any]:
    lacking = any(one.kind == "file" and not one.sha256 for one in seen.files.values())
    return {
        "state": "ok",
        "baseline_at": baseline.taken_at.isoformat(),
        "files": len(seen.files),
        "changed": len(found),
        "unread": seen.unread,
        "complete": seen.is_complete and not lacking,
        "roots": list(baseline.roots),
        "changes": [
            {
                "path": path,
                "change": what,
                "seen_at": baseline.noticed[path][1],
                "modified_at": _at(time_ns / 1e9).isoformat() if time_ns > 0 else None,
            }
            for path, (what, time_ns) in sorted(found.items())
        ],
    }


def _at(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):  # a file's time may be anything
        return datetime.fromtimestamp(0, UTC)
