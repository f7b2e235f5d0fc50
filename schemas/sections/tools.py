"""Sections with results of other tools: Lynis, OpenSCAP, intrusion monitors; and the agent's file integrity check."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import CollectedSection, Counter, Keyword, Name, Text, Timestamp, WireModel

# Entries of a report; `truncated` counts the omitted ones.
MAX_LYNIS_FINDINGS: Final = 128
MAX_XCCDF_RULES: Final = 128
MAX_XCCDF_SCANS: Final = 8
MAX_MONITORS: Final = 16
MAX_CHANGES: Final = 128
MAX_ROOTS: Final = 64

ScanAgeDays = Annotated[int, Field(ge=0, le=36_500)]
Percent = Annotated[int, Field(ge=0, le=100)]
XccdfResult = Literal[
    "pass",
    "fail",
    "error",
    "unknown",
    "notapplicable",
    "notchecked",
    "notselected",
    "informational",
    "fixed",
]


class LynisFinding(WireModel):
    """A warning or suggestion, with Lynis's id of the test."""

    test: Keyword
    kind: Literal["warning", "suggestion"]
    message: Text


class LynisSection(CollectedSection):
    """The newest report of Lynis; the numbers include findings omitted from `findings`."""

    version: Text = ""
    age_days: ScanAgeDays | None = None
    complete: bool
    """Whether the report has its last line; that of an aborted run has not."""
    hardening_index: Percent | None = None
    tests: Counter | None = None
    warnings: Counter
    suggestions: Counter
    vulnerable_packages: Counter
    findings: Annotated[tuple[LynisFinding, ...], Field(max_length=MAX_LYNIS_FINDINGS, fail_fast=True)] = ()
    damaged_lines: Counter = 0
    truncated: Counter = 0


class XccdfScan(WireModel):
    """A run of a benchmark with a profile; `results` counts its rules by XCCDF result."""

    benchmark: Name
    profile: Text = ""
    age_days: ScanAgeDays | None = None
    score: Percent | None = None
    complete: bool
    results: dict[XccdfResult, Counter]


class XccdfRule(WireModel):
    """A rule that did not pass."""

    rule: Name
    result: Literal["fail", "error", "unknown"]
    severity: Literal["unknown", "info", "low", "medium", "high"] = "unknown"
    title: Text = ""


class OpenscapSection(CollectedSection):
    """The newest result of each benchmark and profile."""

    scans: Annotated[tuple[XccdfScan, ...], Field(min_length=1, max_length=MAX_XCCDF_SCANS, fail_fast=True)]
    rules: Annotated[tuple[XccdfRule, ...], Field(max_length=MAX_XCCDF_RULES, fail_fast=True)] = ()
    unreadable: Annotated[tuple[Text, ...], Field(max_length=MAX_XCCDF_SCANS, fail_fast=True)] = ()
    """Result files that could not be read, each with the reason."""
    truncated: Counter = 0


class IntrusionMonitor(WireModel):
    """A monitor whose alerts the agent reads; `reason` states why it cannot."""

    monitor: Keyword
    path: Text
    readable: bool
    running: bool | None = None
    age_days: ScanAgeDays | None = None
    """Since the last modification of its file."""
    reason: Text = ""


class IntrusionSection(CollectedSection):
    """The intrusion monitors of this device; their alerts are sent as events."""

    monitors: Annotated[tuple[IntrusionMonitor, ...], Field(min_length=1, max_length=MAX_MONITORS, fail_fast=True)]


class IntegrityChange(WireModel):
    """A changed file; `seen_at` is when the agent detected the change, `modified_at` the file's own time."""

    path: Text
    change: Literal["added", "removed", "content", "mode", "owner", "kind"]
    seen_at: Timestamp
    modified_at: Timestamp | None = None


class IntegritySection(CollectedSection):
    """Files compared with the baseline of `baseline_at`; the numbers include changes omitted from `changes`."""

    baseline_at: Timestamp
    files: Counter
    changed: Counter
    unread: Counter = 0
    """Files that could not be read and are not compared."""
    complete: bool
    """Whether everything below the configured paths was scanned; false when a bound was reached."""
    roots: Annotated[tuple[Text, ...], Field(max_length=MAX_ROOTS, fail_fast=True)] = ()
    changes: Annotated[tuple[IntegrityChange, ...], Field(max_length=MAX_CHANGES, fail_fast=True)] = ()
    truncated: Counter = 0
