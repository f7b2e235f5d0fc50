"""Parses Lynis's report file line by line; malformed lines are counted and skipped."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

MAX_LINE_BYTES: Final = 64 * 1024
MAX_FINDINGS: Final = 4096  # Lynis has a few hundred tests
_KEY: Final = re.compile(r"^[A-Za-z0-9_.:-]{1,64}(\[\])?$")
_TEST_ID: Final = re.compile(r"^[A-Za-z0-9_.:-]{1,64}$")
_EMPTY: Final = frozenset({"", "-"})
_MAX_INDEX: Final = 100
_MAX_DIGITS: Final = 9


@dataclass(slots=True)
class LynisReport:
    """The content of a report; `findings` are (test, kind, message)."""

    version: str = ""
    ended: datetime | None = None
    started: datetime | None = None
    is_complete: bool = False
    hardening_index: int | None = None
    tests: int | None = None
    vulnerable_packages: int = 0
    has_vulnerable_packages: bool = False  # some tests say only this, and name no package
    findings: set[tuple[str, str, str]] = field(default_factory=set)
    malformed_lines: int = 0
    omitted_count: int = 0
    lines: int = 0

    @property
    def is_lynis_report(self) -> bool:
        """Whether the file holds anything that only Lynis writes."""
        return bool(self.version or self.started or self.findings or self.is_complete)


def parse(lines: Iterable[bytes]) -> LynisReport:
    """Parses the lines of a report; raises for no content."""
    report = LynisReport()
    for raw in lines:
        line = raw.decode(errors="replace").strip("\r\n")
        if not line.strip() or line.startswith("#"):
            continue
        report.lines += 1
        key, equals, value = line.partition("=")
        if len(raw) > MAX_LINE_BYTES or not equals or _KEY.match(key) is None or not _set_field(report, key, value):
            report.malformed_lines += 1
    return report


def _set_field(report: LynisReport, key: str, value: str) -> bool:
    """Sets the field of a key; returns False when the value is malformed."""
    if key in {"warning[]", "suggestion[]"}:
        return _add_finding(report, key.removesuffix("[]"), value)
    if key == "vulnerable_package[]":
        report.vulnerable_packages += 1
    elif key == "vulnerable_packages_found":
        report.has_vulnerable_packages = value == "1"
        return value in {"0", "1"}
    elif key == "lynis_version":
        report.version = value[:64]
    elif key == "finish":
        report.is_complete = value == "true"
    elif key in {"hardening_index", "lynis_tests_done"}:
        return _set_number(report, key, value)
    elif key in {"report_datetime_start", "report_datetime_end"}:
        return _set_time(report, key, value)
    return True


def _add_finding(report: LynisReport, kind: str, value: str) -> bool:
    parts = value.split("|")
    if len(parts) < 2 or _TEST_ID.match(parts[0]) is None:
        return False
    details = [part for part in parts[2:4] if part.strip() not in _EMPTY]
    finding = (parts[0], kind, "; ".join([parts[1], *details]))
    if len(report.findings) < MAX_FINDINGS:
        report.findings.add(finding)
    elif finding not in report.findings:
        report.omitted_count += 1
    return True


def _set_number(report: LynisReport, key: str, value: str) -> bool:
    if not (value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS):
        return False
    number = int(value)
    if key == "lynis_tests_done":
        report.tests = number
        return True
    if number <= _MAX_INDEX:
        report.hardening_index = number
    return number <= _MAX_INDEX


def _set_time(report: LynisReport, key: str, value: str) -> bool:
    try:
        time = datetime.strptime(value, "%Y-%m-%d %H:%M:%S").astimezone()  # Lynis writes local time
    except (ValueError, OverflowError, OSError):
        return False
    if key.endswith("end"):
        report.ended = time
    else:
        report.started = time
    return True
