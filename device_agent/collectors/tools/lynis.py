"""Lynis's findings (section `lynis`), from its newest report file."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from device_agent.collectors.base import Section, SectionBuilder, age_days
from device_agent.collectors.tools.lynis_report import MAX_LINE_BYTES, LynisReport, parse
from device_agent.collectors.tools.tool_runner import ToolStatus
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System
from device_agent.settings import ToolSettings
from schemas.safe_files import open_for_reading

MAX_REPORT_BYTES: Final = 8 * 1024 * 1024
MAX_MESSAGE: Final = 240  # characters of a finding
_DEFAULT_REPORT: Final = "/var/log/lynis-report.dat"
_PROGRAMS: Final = (
    "/usr/sbin/lynis",
    "/usr/bin/lynis",
    "/usr/local/bin/lynis",
    "/usr/local/sbin/lynis",
    "/usr/local/lynis/lynis",
    "/opt/lynis/lynis",
)


class LynisCollector:
    """Collects the `lynis` section.

    Args:
        settings: of the hardening tools.
        tools: the agent's own runs; None outside the running agent.
    """

    def __init__(self, settings: ToolSettings, tools: ToolStatus | None = None) -> None:
        self._settings = settings
        self._tools = tools

    def __call__(self, system: System) -> Section:
        is_installed = any(system.path(program).is_file() for program in _PROGRAMS)
        if self._tools is not None and is_installed:
            self._tools.start_if_due("lynis", system)
        path = self._newest_report(system)
        if path is None:
            if not is_installed:
                raise NotApplicableError("Lynis is not installed and left no report")
            reason = self._tools.status("lynis") if self._tools is not None else ""
            raise FactsUnavailableError(f"Lynis is installed, but there is no report: {reason or 'it was never run'}")
        try:
            with open_for_reading(path) as file:
                report = parse(_lines(file))
            written_at = path.stat().st_mtime
        except PermissionError as e:
            raise FactsUnavailableError(f"{path}: needs root") from e
        if not report.is_lynis_report:
            raise FactsUnavailableError(f"{path}: not a report of Lynis ({report.malformed_lines} malformed lines)")
        return section(report, written_at, time.time())

    def _newest_report(self, system: System) -> Path | None:
        paths = [system.path(str(self._settings.lynis_report or _DEFAULT_REPORT))]
        if self._tools is not None and self._settings.lynis_report is None:
            paths.append(self._tools.paths.lynis_report)
        existing: list[tuple[float, Path]] = []
        for path in paths:
            try:
                existing.append((path.stat().st_mtime, path))
            except FileNotFoundError:
                continue
        return max(existing)[1] if existing else None


def section(report: LynisReport, written_at: float, now: float) -> Section:
    """Returns the section of a report as of `now`; `written_at` is the file's own time. Both are Unix times."""
    ran_at = report.ended or report.started or datetime.fromtimestamp(written_at).astimezone()
    findings = sorted(report.findings, key=lambda finding: (finding[1] != "warning", finding))
    builder = SectionBuilder(
        version=report.version,
        age_days=age_days(ran_at, now),
        complete=report.is_complete,
        hardening_index=report.hardening_index,
        tests=report.tests,
        warnings=sum(kind == "warning" for _, kind, _ in findings),
        suggestions=sum(kind == "suggestion" for _, kind, _ in findings),
        vulnerable_packages=max(report.vulnerable_packages, int(report.has_vulnerable_packages)),
        findings=[{"test": test, "kind": kind, "message": message[:MAX_MESSAGE]} for test, kind, message in findings],
        damaged_lines=report.malformed_lines,
        truncated=report.omitted_count,
    )
    if not report.is_complete or report.malformed_lines:
        reason = "the report is incomplete" if not report.is_complete else "lines of the report are damaged"
        # A count of vulnerable packages is a lower bound; only none may be wrong.
        builder.gap("findings", *(() if builder["vulnerable_packages"] else ("vulnerable_packages",)), reason=reason)
    return builder.build()


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields lines cut just above the allowed length; the rest of a longer line is yielded as another line."""
    left = MAX_REPORT_BYTES
    while left > 0 and (line := file.readline(min(left, MAX_LINE_BYTES + 1))):
        left -= len(line)
        yield line
