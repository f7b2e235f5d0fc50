"""Reads Lynis's report file, line by line: what cannot be read is counted, and the rest still counts."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

MAX_LINE_BYTES: Final = 64 * 1024
MAX_FINDINGS: Final = 4096  # kept; Lynis has a few hundred tests
_KEY: Final = re.compile(r"^[A-Za-z0-9_.:-]{1,64}(\[\])?$")
_TEST: Final = re.compile(r"^[A-Za-z0-9_.:-]{1,64}$")
_NOTHING: Final = frozenset({"", "-"})
_PERCENT: Final = 100
_DIGITS: Final = 9


@dataclass(slots=True)
class LynisReport:
    """What a report said; `findings` are (test, kind, message)."""

    version: str = ""
    ended: datetime | None = None
    started: datetime | None = None
    is_complete: bool = False
    hardening_index: int | None = None
    tests: int | None = None
    vulnerable_packages: int = 0
    findings: set[tuple[str, str, str]] = field(default_factory=set)
    damaged: int = 0
    not_kept: int = 0
    lines: int = 0

    @property
    def looks_like_one(self) -> bool:
        """Whether anything of it says that Lynis wrote it."""
        return bool(self.version or self.started or self.findings or self.is_complete)


def parse(lines: Iterable[bytes]) -> LynisReport:
    """Read the lines of a report; never raises for what they contain."""
    report = LynisReport()
    for raw in lines:
        line = raw.decode(errors="replace").strip("\r\n")
        if not line.strip() or line.startswith("#"):
            continue
        report.lines += 1
        key, equals, value = line.partition("=")
        if len(raw) > MAX_LINE_BYTES or not equals or _KEY.match(key) is None or not _take(report, key, value):
            report.damaged += 1
    return report


def _take(report: LynisReport, key: str, value: str) -> bool:
    """Whether the value is what its key promises."""
    if key in {"warning[]", "suggestion[]"}:
        return _finding(report, key.removesuffix("[]"), value)
    if key == "vulnerable_package[]":
        report.vulnerable_packages += 1
    elif key == "lynis_version":
        report.version = value[:64]
    elif key == "finish":
        report.is_complete = value == "true"
    elif key in {"hardening_index", "lynis_tests_done"}:
        return _number(report, key, value)
    elif key in {"report_datetime_start", "report_datetime_end"}:
        return _time(report, key, value)
    return True


def _finding(report: LynisReport, kind: str, value: str) -> bool:
    parts = value.split("|")
    if len(parts) < 2 or _TEST.match(parts[0]) is None:
        return False
    details = [part for part in parts[2:4] if part.strip() not in _NOTHING]
    found = (parts[0], kind, "; ".join([parts[1], *details]))
    if len(report.findings) < MAX_FINDINGS:
        report.findings.add(found)
    elif found not in report.findings:
        report.not_kept += 1
    return True


def _number(report: LynisReport, key: str, value: str) -> bool:
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS):
        return False
    number = int(value)
    if key == "lynis_tests_done":
        report.tests = number
        return True
    if number <= _PERCENT:
        report.hardening_index = number
    return number <= _PERCENT


def _time(report: LynisReport, key: str, value: str) -> bool:
    try:
        time = datetime.strptime(value, "%Y-%m-%d %H:%M:%S").astimezone()  # Lynis writes local time
    except (ValueError, OverflowError, OSError):
        return False
    if key.endswith("end"):
        report.ended = time
    else:
        report.started = time
    return True
