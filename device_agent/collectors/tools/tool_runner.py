"""Runs Lynis and OpenSCAP in the background where the configuration allows it; a run takes minutes, no scan waits."""

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

MAX_SECONDS: Final = 1800.0  # of one run
RETRY_SECONDS: Final = 3600.0  # after a failed run
MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024  # printed by the tool; the output is discarded
_FOLDER: Final = "tools"
# 0: every rule passes, 2: a rule fails or is unknown; both leave a result.
_OSCAP_OK: Final = frozenset({0, 2})
# 78: there are warnings, and the profile asks for that status.
_LYNIS_OK: Final = frozenset({0, 78})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolResultPaths:
    """The result files of the runs that the agent starts."""

    folder: Path

    @property
    def lynis_report(self) -> Path:
        """Lynis's report file."""
        return self.folder / "lynis-report.dat"

    @property
    def openscap_results(self) -> Path:
        """OpenSCAP's XCCDF results."""
        return self.folder / "openscap-results.xml"


class ToolStatus:
    """The state of the runs as the agent passed it to a scan; starts nothing itself."""

    def __init__(self, paths: ToolResultPaths, status: Mapping[str, str]) -> None:
        self.paths = paths
        self._status = status

    def status(self, tool: str) -> str:
        """Returns why the tool has no result yet; empty when unknown."""
        return self._status.get(tool, "")

    def start_if_due(self, tool: str, system: System) -> None:
        """Does nothing: the agent's process starts the tools."""


class ToolRunner(ToolStatus):
    """Starts each allowed tool when it is due; at most one run of each at a time, `stop` ends them."""

    def __init__(self, settings: ToolSettings, state_dir: Path) -> None:
        super().__init__(self.result_paths(state_dir), {})
        self._settings = settings
        self._stopping = threading.Event()
        self._mutex = threading.Lock()
        self._running: dict[str, threading.Thread] = {}
        self._failed_at: dict[str, float] = {}
        self._errors: dict[str, str] = {}

    @staticmethod
    def result_paths(state_dir: Path) -> ToolResultPaths:
        """Returns the result paths of an agent with this state folder."""
        return ToolResultPaths(state_dir / _FOLDER)

    def stop(self) -> None:
        """Ends running tools soon."""
        self._stopping.set()

    def status(self, tool: str) -> str:
        """Returns that the tool runs, or why its last run failed; else empty."""
        with self._mutex:
            thread = self._running.get(tool)
            if thread is not None and thread.is_alive():
                return "its first run is under way"
            return self._errors.get(tool, "")

    def start_if_due(self, tool: str, system: System) -> None:
        """Starts the tool if it is allowed, the system is the running machine, and the last result is old enough."""
        if tool not in self._settings.run or not system.is_live or self._stopping.is_set():
            return
        with self._mutex:
            thread = self._running.get(tool)
            if (thread is not None and thread.is_alive()) or not self._is_due(tool):
                return
            if not system.is_root_user:
                self._errors[tool] = "running it needs root"
                return
            self._running[tool] = threading.Thread(target=self._run, args=(tool,), name=f"tool-{tool}", daemon=True)
            self._running[tool].start()

    def _is_due(self, tool: str) -> bool:
        failed_at = self._failed_at.get(tool)
        if failed_at is not None and time.monotonic() < failed_at + RETRY_SECONDS:
            return False
        try:
            age = time.time() - self._result_path(tool).stat().st_mtime
        except OSError:
            return True
        return not 0 <= age < self._settings.run_every

    def _result_path(self, tool: str) -> Path:
        return self.paths.lynis_report if tool == "lynis" else self.paths.openscap_results

    def _run(self, tool: str) -> None:
        result = self._result_path(tool)
        output = result.with_name(f".{result.name}.new")
        error = ""
        try:
            self.paths.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            output.unlink(missing_ok=True)
            argv = self.lynis_command(output) if tool == "lynis" else self._oscap_command(output)
            ok = _LYNIS_OK if tool == "lynis" else _OSCAP_OK
            run(argv, seconds=MAX_SECONDS, ok_statuses=ok, max_bytes=MAX_OUTPUT_BYTES, cancelled=self._stopping)
            output.chmod(0o600)
            output.replace(result)
        except (ExecuteError, OSError) as e:
            error = f"running it failed: {e}"
            _log.warning("%s: %s", tool, error)
            with contextlib.suppress(OSError):
                output.unlink(missing_ok=True)
        with self._mutex:
            self._errors[tool] = error
            if error:
                self._failed_at[tool] = time.monotonic()

    @staticmethod
    def lynis_command(output: Path) -> Sequence[str]:
        """Returns the command that writes a report to `output`."""
        # Not --cronjob: its pid file survives a killed run and blocks every later one.
        quiet = ("--quick", "--quiet", "--no-colors", "--no-log")
        return ["nice", "-n", "19", "lynis", "audit", "system", *quiet, "--report-file", str(output)]

    def _oscap_command(self, output: Path) -> Sequence[str]:
        assert self._settings.openscap_content is not None
        profile = ["--profile", self._settings.openscap_profile] if self._settings.openscap_profile else []
        content = str(self._settings.openscap_content.absolute())
        return ["nice", "-n", "19", "oscap", "xccdf", "eval", *profile, "--results", str(output), content]
