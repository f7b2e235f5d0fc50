"""What OpenSCAP found: the newest XCCDF result of each benchmark and profile, read where it lies."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.tools.lynis import age_days
from device_agent.collectors.tools.tool_runner import ToolStatus
from device_agent.collectors.tools.xccdf import RESULTS, SEVERITIES, XccdfDocument, XccdfTestResult, parse
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System
from device_agent.settings import ToolSettings
from schemas.base import MAX_NAME
from schemas.sections.tools import MAX_XCCDF_SCANS

MAX_FILES: Final = 16  # the newest
MAX_FILE_BYTES: Final = 128 * 1024 * 1024
MAX_TITLE: Final = 160  # characters
_MAX_LISTED: Final = 2000  # files that a pattern may name before the newest are chosen
_USUAL: Final = (
    "/var/log/openscap/*.xml",
    "/var/lib/openscap/*.xml",
    "/var/lib/openscap/results/*.xml",
    "/var/lib/oscapd/results/*/*/results.xml",
    "/var/lib/cordon-agent/openscap.xml",  # of the command scan.run
)
_PROGRAMS: Final = ("/usr/bin/oscap", "/usr/local/bin/oscap")
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Titled:
    """A rule that did not pass, with what it is called."""

    rule: str
    result: str
    severity: str
    title: str


@dataclass(frozen=True, slots=True)
class _Parsed:
    """What is kept of a file, so that an unchanged one is not read again."""

    scans: tuple[tuple[XccdfTestResult, tuple[_Titled, ...]], ...]
    trouble: str


class OpenscapCollector:
    """The collector of the `openscap` section."""

    def __init__(self, settings: ToolSettings, runs: ToolStatus | None = None) -> None:
        """`runs` is given where the agent keeps running and may run the tool itself."""
        self._settings = settings
        self._runs = runs
        self._known: dict[tuple[str, int, int], _Parsed] = {}

    def remembered(self) -> object:
        """What was read of each file, by its state."""
        return self._known

    def recall(self, memory: Any) -> None:
        """Go on from there."""
        self._known = memory

    def __call__(self, system: System) -> Section:
        """The `openscap` section."""
        is_installed = any(system.path(place).is_file() for place in _PROGRAMS)
        if self._runs is not None and is_installed:
            self._runs.consider("openscap", system)
        files = self._files(system)
        if not files:
            if not is_installed:
                raise NotApplicableError("OpenSCAP is not installed and left no result")
            why = self._runs.told("openscap") if self._runs is not None else ""
            raise FactsUnavailableError(f"OpenSCAP is installed, but there is no result: {why or 'it was never run'}")
        known: dict[tuple[str, int, int], _Parsed] = {}
        unreadable: list[str] = []
        newest: dict[tuple[str, str], tuple[XccdfTestResult, tuple[_Titled, ...]]] = {}
        for path in files:
            try:
                status = path.stat()
                key = (str(path), status.st_mtime_ns, status.st_size)
                parsed = known[key] = self._known.get(key) or _read(path, status.st_size)
            except OSError as e:
                unreadable.append(f"{path}: {'needs root' if isinstance(e, PermissionError) else e.strerror}")
                continue
            if parsed.trouble:
                unreadable.append(f"{path}: {parsed.trouble}")
            for scan, rules in parsed.scans:
                other = newest.get((scan.benchmark, scan.profile))
                if other is None or _when(scan) > _when(other[0]):
                    newest[scan.benchmark, scan.profile] = (scan, rules)
        self._known = known
        if not newest:
            raise FactsUnavailableError("; ".join(unreadable) or "no XCCDF result in any of the files")
        return _section(newest, sorted(unreadable), time.time())

    def _files(self, system: System) -> list[Path]:
        patterns = self._settings.openscap_results or _USUAL
        found = [path for pattern in patterns for path in _matching(system, pattern)]
        if self._runs is not None and self._runs.places.openscap.is_file():
            found.append(self._runs.places.openscap)
        return sorted(set(found), key=_modified, reverse=True)[:MAX_FILES]


def _matching(system: System, pattern: str) -> Iterator[Path]:
    try:
        for number, path in enumerate(system.root.glob(pattern.lstrip("/"))):
            if number >= _MAX_LISTED:
                return
            if path.is_file():
                yield path
    except (OSError, ValueError):
        return


def _modified(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, str(path)
    except OSError:
        return 0, str(path)


def _read(path: Path, size: int) -> _Parsed:
    if size > MAX_FILE_BYTES:
        return _Parsed((), f"larger than {MAX_FILE_BYTES} bytes")
    found = parse(_chunks(path))
    trouble = found.trouble
    if not found.scans and not trouble:
        trouble = "no XCCDF result in it"
    return _Parsed(tuple(_titled(found, scan) for scan in found.scans), trouble)


def _titled(found: XccdfDocument, scan: XccdfTestResult) -> tuple[XccdfTestResult, tuple[_Titled, ...]]:
    rules = tuple(
        _Titled(one.rule[:MAX_NAME], one.result, one.severity, found.titles.get(one.rule, "")[:MAX_TITLE])
        for one in scan.rules
    )
    scan.rules = []
    return scan, rules


def _chunks(path: Path) -> Iterator[bytes]:
    left = MAX_FILE_BYTES
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk


def _when(scan: XccdfTestResult) -> float:
    return scan.ended.timestamp() if scan.ended is not None else float("-inf")


def _section(
    newest: dict[tuple[str, str], tuple[XccdfTestResult, tuple[_Titled, ...]]], unreadable: list[str], now: float
) -> dict[str, Any]:
    chosen = sorted(newest.values(), key=lambda one: _when(one[0]), reverse=True)
    extra = [f"{scan.benchmark}: only the newest {MAX_XCCDF_SCANS} are told" for scan, _ in chosen[MAX_XCCDF_SCANS:]]
    chosen = sorted(chosen[:MAX_XCCDF_SCANS], key=lambda one: (one[0].benchmark, one[0].profile))
    rules = {rule for _, rules in chosen for rule in rules}
    # The worst first, so that a list that is cut still has it.
    ordered = sorted(
        rules, key=lambda one: (one.result != "fail", -SEVERITIES.index(one.severity), one.rule, one.result)
    )
    return {
        "state": "ok",
        "scans": [
            {
                "benchmark": scan.benchmark[:MAX_NAME] or "unnamed",
                "profile": scan.profile,
                "age_days": age_days(scan.ended, now) if scan.ended is not None else None,
                "score": scan.score,
                "complete": scan.is_complete,
                "results": {word: scan.results[word] for word in RESULTS if word in scan.results},
            }
            for scan, _ in chosen
        ],
        "rules": [
            {"rule": one.rule, "result": one.result, "severity": one.severity, "title": one.title} for one in ordered
        ],
        "unreadable": (unreadable + extra)[:MAX_XCCDF_SCANS],
        "truncated": sum(scan.not_kept for scan, _ in chosen),
    }
