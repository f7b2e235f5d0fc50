"""Starts each scan in its own process and reads its result, so that the agent never loads what only scans need."""

import json
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Final, Protocol

from device_agent.collectors.base import SECTIONS
from device_agent.collectors.tools.tool_runner import ToolRunner
from device_agent.domain.report import ReportContent, all_sections_unavailable
from device_agent.host.execute import ExecuteError, environment_for_self, run
from device_agent.host.system import System
from device_agent.settings import Settings

SCAN_SECONDS: Final = 90.0  # a collector may take 60; the rest is for starting, on a slow device
_MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024  # sections, and a state that may hold revocation lists
_MODULE: Final = "device_agent.scanning.scan_child"
_log = logging.getLogger(__name__)


class ScanRunner(Protocol):
    """Scans the device; called from one thread."""

    def scan(self, *, force_rescan: bool) -> ReportContent:
        """Returns every section; with `force_rescan` none is reused from an earlier scan."""
        ...

    def stop(self) -> None:
        """Ends a running scan soon; its result does not count."""
        ...


class ScanProcess:
    """Runs scans in `device_agent.scanning.scan_child` and passes the state of each scan, unread, to the next."""

    def __init__(
        self,
        settings: Settings,
        system: System,
        tools: ToolRunner,
        *,
        seconds: float = SCAN_SECONDS,
        argv: Sequence[str] = (sys.executable, "-P", "-m", _MODULE),
    ) -> None:
        """`tools` starts the hardening tools in this process; the scans read their results."""
        self._settings = settings
        self._system = system
        self._tools = tools
        self._seconds = seconds
        self._argv = argv
        self._scanner_state = ""  # JSON
        self._stopping = threading.Event()

    def scan(self, *, force_rescan: bool) -> ReportContent:
        """Runs one scan; if its process fails, every section is unknown with the reason."""
        for tool in self._settings.tools.run:
            self._tools.start_if_due(tool, self._system)
        request = {
            "settings": self._settings.model_dump(mode="json"),
            "root": str(self._system.root),
            "is_root_user": self._system.is_root_user,
            "force_rescan": force_rescan,
            "tools": {tool: self._tools.status(tool) for tool in self._settings.tools.run},
            "state": self._scanner_state,
        }
        try:
            done = run(
                self._argv,
                seconds=self._seconds,
                environment=environment_for_self(),
                max_bytes=_MAX_OUTPUT_BYTES,
                cancelled=self._stopping,
                stdin=json.dumps(request).encode("ascii"),
            )
            answer = json.loads(done.stdout)
            content, self._scanner_state = ReportContent(answer["sections"], answer["digest"]), answer["state"]
        except (ExecuteError, ValueError, KeyError, TypeError) as e:
            if not self._stopping.is_set():
                _log.error("the scan failed: %s", e)
            return all_sections_unavailable(SECTIONS, f"the scan failed: {e}")
        if done.stderr:
            _log.warning("output of the scan: %s", done.stderr.strip())
        return content

    def stop(self) -> None:
        """Ends a running scan soon."""
        self._stopping.set()
