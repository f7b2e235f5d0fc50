"""Runs hardening tools in the background, where the owner allows it: minutes of work that no scan waits for."""

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.host.execute import ExecuteError, run
from device_agent.host.system import System
from device_agent.settings import ToolSettings

MAX_SECONDS: Final = 1800.0  # for one run
RETRY_SECONDS: Final = 3600.0  # after a run that failed
MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024  # of what the tool prints, which nobody reads
_FOLDER: Final = "tools"
# 0: everything passes, 2: a rule fails or is unknown; both leave a result.
_OSCAP_OK: Final = frozenset({0, 2})
# 78: there are warnings, where a profile asks for that status.
_LYNIS_OK: Final = frozenset({0, 78})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolResultPaths:
    """Where the agent's own runs leave their results."""

    folder: Path

    @property
    def lynis(self) -> Path:
        """Lynis's report file."""
        return self.folder / "lynis-report.dat"

    @property
    def openscap(self) -> Path:
        """OpenSCAP's XCCDF results."""
        return self.folder / "openscap-results.xml"


class ToolStatus:
    """What a scan may know of the runs, told by the process that starts them."""

    def __init__(self, places: ToolResultPaths, told: Mapping[str, str]) -> None:
        self.places = places
        self._told = told

    def told(self, tool: str) -> str:
        """What to say of a tool whose result is missing."""
        return self._told.get(tool, "")

    def consider(self, tool: str, system: System) -> None:
        """Somebody else does."""


class ToolRunner(ToolStatus):
    """Starts each allowed tool when its time has come; one run of each at a time, `stop` ends them."""

    def __init__(self, settings: ToolSettings, state_dir: Path) -> None:
        super().__init__(self.places_in(state_dir), {})
        self._settings = settings
        self._stopping = threading.Event()
        self._mutex = threading.Lock()
        self._running: dict[str, threading.Thread] = {}
        self._failed_at: dict[str, float] = {}
        self._trouble: dict[str, str] = {}

    @staticmethod
    def places_in(state_dir: Path) -> ToolResultPaths:
        """Where an agent with this state folder leaves results."""
        return ToolResultPaths(state_dir / _FOLDER)

    def stop(self) -> None:
        """End what runs, soon."""
        self._stopping.set()

    def told(self, tool: str) -> str:
        """What to say of a tool whose result is missing: that it runs, or why the last run failed; else empty."""
        with self._mutex:
            thread = self._running.get(tool)
            if thread is not None and thread.is_alive():
                return "its first run is under way"
            return self._trouble.get(tool, "")

    def consider(self, tool: str, system: System) -> None:
        """Start the tool when it is allowed, on this very machine, and its last run was long enough ago."""
        if tool not in self._settings.run or not system.is_live or self._stopping.is_set():
            return
        with self._mutex:
            thread = self._running.get(tool)
            if (thread is not None and thread.is_alive()) or not self._is_due(tool):
                return
            if not system.is_root_user:
                self._trouble[tool] = "running it needs root"
                return
            self._running[tool] = threading.Thread(target=self._run, args=(tool,), name=f"tool-{tool}", daemon=True)
            self._running[tool].start()

    def _is_due(self, tool: str) -> bool:
        failed_at = self._failed_at.get(tool)
        if failed_at is not None and time.monotonic() < failed_at + RETRY_SECONDS:
            return False
        result = self.places.lynis if tool == "lynis" else self.places.openscap
        try:
            age = time.time() - result.stat().st_mtime
        except OSError:
            return True
        return not 0 <= age < self._settings.run_every

    def _run(self, tool: str) -> None:
        result = self.places.lynis if tool == "lynis" else self.places.openscap
        fresh = result.with_name(f".{result.name}.new")
        trouble = ""
        try:
            self.places.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)
            argv = self._lynis(fresh) if tool == "lynis" else self._oscap(fresh)
            ok = _LYNIS_OK if tool == "lynis" else _OSCAP_OK
            run(argv, seconds=MAX_SECONDS, ok=ok, max_bytes=MAX_OUTPUT_BYTES, cancelled=self._stopping)
            fresh.chmod(0o600)
            fresh.replace(result)
        except (ExecuteError, OSError) as e:
            trouble = f"running it failed: {e}"
            _log.warning("%s: %s", tool, trouble)
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
        with self._mutex:
            self._trouble[tool] = trouble
            if trouble:
                self._failed_at[tool] = time.monotonic()

    @staticmethod
    def _lynis(fresh: Path) -> Sequence[str]:
        # Not --cronjob: there the pid file of a run that was killed keeps all later ones from starting.
        quiet = ("--quick", "--quiet", "--no-colors", "--no-log")
        return ["nice", "-n", "19", "lynis", "audit", "system", *quiet, "--report-file", str(fresh)]

    def _oscap(self, fresh: Path) -> Sequence[str]:
        assert self._settings.openscap_content is not None
        profile = ["--profile", self._settings.openscap_profile] if self._settings.openscap_profile else []
        content = str(self._settings.openscap_content.absolute())
        return ["nice", "-n", "19", "oscap", "xccdf", "eval", *profile, "--results", str(fresh), content]
