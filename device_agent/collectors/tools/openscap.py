"""OpenSCAP's findings (section `openscap`): the newest XCCDF result of each benchmark and profile."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from device_agent.collectors.base import Section, SectionBuilder, age_days
from device_agent.collectors.tools.tool_runner import ToolStatus
from device_agent.collectors.tools.xccdf import RESULTS, SEVERITIES, XccdfDocument, XccdfTestResult, parse
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System
from device_agent.settings import ToolSettings
from schemas.base import MAX_NAME
from schemas.safe_files import open_for_reading
from schemas.sections.tools import MAX_XCCDF_SCANS

MAX_FILES: Final = 16  # the newest
MAX_FILE_BYTES: Final = 128 * 1024 * 1024
MAX_TITLE: Final = 160  # characters
_MAX_MATCHES: Final = 2000  # files of one pattern, before the newest are chosen
_DEFAULT_PATTERNS: Final = (
    "/var/log/openscap/*.xml",
    "/var/lib/openscap/*.xml",
    "/var/lib/openscap/results/*.xml",
    "/var/lib/oscapd/results/*/*/results.xml",
    "/var/lib/cordon-agent/openscap.xml",  # of the command scan.run
)
_PROGRAMS: Final = ("/usr/bin/oscap", "/usr/local/bin/oscap")
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class _NamedRule:
    """A rule that did not pass, with its title."""

    rule: str
    result: str
    severity: str
    title: str


_NamedResult = tuple[XccdfTestResult, tuple[_NamedRule, ...]]


@dataclass(frozen=True, slots=True)
class _CachedResult:
    """The parsed content of a file, so that an unchanged file is not parsed again."""

    scans: tuple[_NamedResult, ...]
    error: str


_CACHE: Final = TypeAdapter(dict[str, _CachedResult])


_MAX_COMPRESSED: Final = 4  # named in gaps


class OpenscapCollector:
    """Collects the `openscap` section.

    Args:
        settings: of the hardening tools.
        tools: the agent's own runs; None outside the running agent.
    """

    def __init__(self, settings: ToolSettings, tools: ToolStatus | None = None) -> None:
        self._settings = settings
        self._tools = tools
        self._cache: dict[str, _CachedResult] = {}  # by path, modification time and size

    def state(self) -> object:
        """Returns the parsed files."""
        return _CACHE.dump_python(self._cache, mode="json")

    def restore(self, state: Any) -> None:
        """Restores what `state` returned."""
        self._cache = _CACHE.validate_python(state)

    def __call__(self, system: System) -> Section:
        is_installed = any(system.path(program).is_file() for program in _PROGRAMS)
        if self._tools is not None and is_installed:
            self._tools.start_if_due("openscap", system)
        files = self._files(system)
        unreadable = [f"{path}: a compressed result is not read" for path in self._compressed(system)]
        if not files and unreadable:
            raise FactsUnavailableError("; ".join(unreadable))
        if not files:
            if not is_installed:
                raise NotApplicableError("OpenSCAP is not installed and left no result")
            reason = self._tools.status("openscap") if self._tools is not None else ""
            raise FactsUnavailableError(
                f"OpenSCAP is installed, but there is no result: {reason or 'it was never run'}"
            )
        cache: dict[str, _CachedResult] = {}
        newest: dict[tuple[str, str], _NamedResult] = {}
        for path in files:
            try:
                status = path.stat()
                key = f"{str(path)!a}:{status.st_mtime_ns}:{status.st_size}"
                result = cache[key] = self._cache.get(key) or _parse_file(path, status.st_size)
            except OSError as e:
                unreadable.append(f"{path}: {'needs root' if isinstance(e, PermissionError) else e.strerror}")
                continue
            if result.error:
                unreadable.append(f"{path}: {result.error}")
            for scan, rules in result.scans:
                other = newest.get((scan.benchmark, scan.profile))
                if other is None or _ended_at(scan) > _ended_at(other[0]):
                    newest[scan.benchmark, scan.profile] = (scan, rules)
        self._cache = cache
        if not newest:
            raise FactsUnavailableError("; ".join(unreadable) or "no XCCDF result in any of the files")
        return _section(newest, sorted(unreadable), time.time())

    def _compressed(self, system: System) -> list[Path]:
        patterns = self._settings.openscap_results or _DEFAULT_PATTERNS
        found = {path for pattern in patterns for path in _matching(system, f"{pattern}.*")}
        return sorted(path for path in found if path.suffix in {".bz2", ".gz", ".xz", ".zst"})[:_MAX_COMPRESSED]

    def _files(self, system: System) -> list[Path]:
        patterns = self._settings.openscap_results or _DEFAULT_PATTERNS
        files = [path for pattern in patterns for path in _matching(system, pattern)]
        if self._tools is not None and self._tools.paths.openscap_results.is_file():
            files.append(self._tools.paths.openscap_results)
        return sorted(set(files), key=_modified_at, reverse=True)[:MAX_FILES]


def _matching(system: System, pattern: str) -> Iterator[Path]:
    try:
        for number, path in enumerate(system.root.glob(pattern.lstrip("/"))):
            if number >= _MAX_MATCHES:
                return
            if path.is_file():
                yield path
    except (OSError, ValueError):
        return


def _modified_at(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, str(path)
    except OSError:
        return 0, str(path)


def _parse_file(path: Path, size: int) -> _CachedResult:
    if size > MAX_FILE_BYTES:
        return _CachedResult((), f"larger than {MAX_FILE_BYTES} bytes")
    document = parse(_chunks(path))
    error = document.error
    if not document.scans and not error:
        error = "no XCCDF result in it"
    return _CachedResult(tuple(_with_titles(document, scan) for scan in document.scans), error)


def _with_titles(document: XccdfDocument, scan: XccdfTestResult) -> _NamedResult:
    titles = document.titles
    rules = tuple(
        _NamedRule(rule.rule[:MAX_NAME], rule.result, rule.severity, titles.get(rule.rule, "")[:MAX_TITLE])
        for rule in scan.rules
    )
    scan.rules = []
    return scan, rules


def _chunks(path: Path) -> Iterator[bytes]:
    left = MAX_FILE_BYTES
    with open_for_reading(path) as file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk


def _ended_at(scan: XccdfTestResult) -> float:
    return scan.ended.timestamp() if scan.ended is not None else float("-inf")


def _section(newest: dict[tuple[str, str], _NamedResult], unreadable: list[str], now: float) -> Section:
    chosen = sorted(newest.values(), key=lambda result: _ended_at(result[0]), reverse=True)
    omitted = [
        f"{scan.benchmark}: only the newest {MAX_XCCDF_SCANS} are reported" for scan, _ in chosen[MAX_XCCDF_SCANS:]
    ]
    chosen = sorted(chosen[:MAX_XCCDF_SCANS], key=lambda result: (result[0].benchmark, result[0].profile))
    rules = {rule for _, rules in chosen for rule in rules}
    # The worst first: a truncated list keeps them.
    ordered = sorted(
        rules, key=lambda rule: (rule.result != "fail", -SEVERITIES.index(rule.severity), rule.rule, rule.result)
    )
    section = SectionBuilder(
        scans=[
            {
                "benchmark": scan.benchmark[:MAX_NAME] or "unnamed",
                "profile": scan.profile,
                "age_days": age_days(scan.ended, now) if scan.ended is not None else None,
                "score": scan.score,
                "complete": scan.is_complete,
                "results": {result: scan.results[result] for result in RESULTS if result in scan.results},
            }
            for scan, _ in chosen
        ],
        rules=[
            {"rule": rule.rule, "result": rule.result, "severity": rule.severity, "title": rule.title}
            for rule in ordered
        ],
        unreadable=(unreadable + omitted)[:MAX_XCCDF_SCANS],
        truncated=sum(scan.omitted_count for scan, _ in chosen),
    )
    if unreadable or omitted or not all(scan.is_complete for scan, _ in chosen):
        section.gap("rules", reason="not all results could be read completely")
    for scan, _ in chosen:
        if scan.not_understood:
            section.gap("rules", reason=scan.not_understood, source=scan.benchmark)
    return section.build()
