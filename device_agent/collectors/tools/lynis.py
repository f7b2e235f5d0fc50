"""What Lynis found: its newest report, read where it lies."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from device_agent.collectors.base import Section
from device_agent.collectors.tools.lynis_report import MAX_LINE_BYTES, LynisReport, parse
from device_agent.collectors.tools.tool_runner import ToolStatus
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System
from device_agent.settings import ToolSettings

MAX_REPORT_BYTES: Final = 8 * 1024 * 1024
MAX_MESSAGE: Final = 240  # characters of a finding
_USUAL: Final = "/var/log/lynis-report.dat"
_PROGRAMS: Final = (
    "/usr/sbin/lynis",
    "/usr/bin/lynis",
    "/usr/local/bin/lynis",
    "/usr/local/sbin/lynis",
    "/usr/local/lynis/lynis",
    "/opt/lynis/lynis",
)
_DAY: Final = 86_400
_MAX_DAYS: Final = 36_500


class LynisCollector:
    """The collector of the `lynis` section."""

    def __init__(self, settings: ToolSettings, runs: ToolStatus | None = None) -> None:
        """`runs` is given where the agent keeps running and may run the tool itself."""
        self._settings = settings
        self._runs = runs

    def __call__(self, system: System) -> Section:
        """The `lynis` section."""
        is_installed = any(system.path(place).is_file() for place in _PROGRAMS)
        if self._runs is not None and is_installed:
            self._runs.consider("lynis", system)
        path = self._newest(system)
        if path is None:
            if not is_installed:
                raise NotApplicableError("Lynis is not installed and left no report")
            why = self._runs.told("lynis") if self._runs is not None else ""
            raise FactsUnavailableError(f"Lynis is installed, but there is no report: {why or 'it was never run'}")
        try:
            with path.open("rb") as file:
                report = parse(_lines(file))
            written = path.stat().st_mtime
        except PermissionError as e:
            raise FactsUnavailableError(f"{path}: needs root") from e
        if not report.looks_like_one:
            raise FactsUnavailableError(f"{path}: not a report of Lynis ({report.damaged} damaged lines)")
        return section(report, written, time.time())

    def _newest(self, system: System) -> Path | None:
        places = [system.path(str(self._settings.lynis_report or _USUAL))]
        if self._runs is not None and self._settings.lynis_report is None:
            places.append(self._runs.places.lynis)
        there: list[tuple[float, Path]] = []
        for path in places:
            try:
                there.append((path.stat().st_mtime, path))
            except FileNotFoundError:
                continue
        return max(there)[1] if there else None


def section(report: LynisReport, written: float, now: float) -> dict[str, Any]:
    """The section of a report that was written at `written` (seconds since the epoch), as it is at `now`."""
    ran = report.ended or report.started
    findings = sorted(report.findings, key=lambda one: (one[1] != "warning", one))
    found: dict[str, Any] = {
        "state": "ok",
        "version": report.version,
        "age_days": age_days(ran, now)
        if ran is not None
        else age_days(datetime.fromtimestamp(written).astimezone(), now),
        "complete": report.is_complete,
        "hardening_index": report.hardening_index,
        "tests": report.tests,
        "warnings": sum(kind == "warning" for _, kind, _ in findings),
        "suggestions": sum(kind == "suggestion" for _, kind, _ in findings),
        "vulnerable_packages": report.vulnerable_packages,
        "findings": [
            {"test": test, "kind": kind, "message": message[:MAX_MESSAGE]} for test, kind, message in findings
        ],
        "damaged_lines": report.damaged,
        "truncated": report.not_kept,
    }
    return found


def age_days(then: datetime, now: float) -> int:
    """Whole days between the two, bounded; a time to come is today."""
    return min(_MAX_DAYS, max(0, int((now - then.timestamp()) // _DAY)))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines that are cut a little above the longest allowed; the rest of a longer one is read as a line of its own."""
    left = MAX_REPORT_BYTES
    while left > 0 and (line := file.readline(min(left, MAX_LINE_BYTES + 1))):
        left -= len(line)
        yield line
