"""Starts each scan in a process of its own and takes what it found: what only looking needs, the agent never loads."""

import json
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Final, Protocol

from device_agent.collectors.names import SECTIONS
from device_agent.collectors.tools.tool_runner import ToolRunner
from device_agent.domain.report import ReportContent, nothing_found
from device_agent.host.execute import ExecuteError, own_path, run
from device_agent.host.system import System
from device_agent.settings import Settings

SCAN_SECONDS: Final = 90.0  # a collector may take 60; the rest is for starting, on a slow device
_MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024  # sections, and a memory that may hold revocation lists
_MODULE: Final = "device_agent.scanning.scan_child"
_log = logging.getLogger(__name__)


class ScanRunner(Protocol):
    """Looks at the device, from one thread."""

    def scan(self, *, is_fresh: bool) -> ReportContent:
        """What was found; with `is_fresh` everything is looked at anew."""
        ...

    def stop(self) -> None:
        """End a scan that runs, soon; what it returns then does not count."""
        ...


class ScanProcess:
    """Runs scans in `device_agent.scanning.scan_child` and keeps, unread, what each scan passes to the next."""

    def __init__(
        self,
        settings: Settings,
        system: System,
        runs: ToolRunner,
        *,
        seconds: float = SCAN_SECONDS,
        argv: Sequence[str] = (sys.executable, "-P", "-m", _MODULE),
    ) -> None:
        """`runs` are the tools whose results the scans read: this process starts them."""
        self._settings = settings
        self._system = system
        self._runs = runs
        self._seconds = seconds
        self._argv = argv
        self._memory = ""
        self._stopping = threading.Event()

    def scan(self, *, is_fresh: bool) -> ReportContent:
        """One scan; where it fails as a whole, every section is unknown and says why."""
        for tool in self._settings.tools.run:
            self._runs.consider(tool, self._system)
        request = {
            "settings": self._settings.model_dump(mode="json"),
            "root": str(self._system.root),
            "is_root_user": self._system.is_root_user,
            "is_fresh": is_fresh,
            "tools": {tool: self._runs.told(tool) for tool in self._settings.tools.run},
            "memory": self._memory,
        }
        try:
            done = run(
                self._argv,
                seconds=self._seconds,
                environment=own_path(),
                max_bytes=_MAX_OUTPUT_BYTES,
                cancelled=self._stopping,
                stdin=json.dumps(request).encode("ascii"),
            )
            answer = json.loads(done.out)
            found, self._memory = ReportContent(answer["sections"], answer["digest"]), answer["memory"]
        except (ExecuteError, ValueError, KeyError, TypeError) as e:
            if not self._stopping.is_set():
                _log.error("the scan failed: %s", e)
            return nothing_found(SECTIONS, f"the scan failed: {e}")
        if done.err:
            _log.warning("the scan says: %s", done.err.strip())
        return found

    def stop(self) -> None:
        """End a scan that runs, soon."""
        self._stopping.set()
