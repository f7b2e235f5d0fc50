"""Sections about what other tools found: Lynis, OpenSCAP, intrusion monitors, and the agent's own look at files."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import Counter, Keyword, Name, Text, Timestamp, WireModel

# Entries of a report; what is cut is counted in `truncated`.
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
    """One warning or suggestion, under the id that Lynis gives its test."""

    test: Keyword
    kind: Literal["warning", "suggestion"]
    message: Text


class LynisSection(WireModel):
    """The newest report of Lynis; the numbers are counted before `findings` is cut."""

    state: Literal["ok"] = "ok"
    version: Text = ""
    age_days: ScanAgeDays | None = None
    complete: bool
    """Whether the report has its last line; a run that was broken off has not."""
    hardening_index: Percent | None = None
    tests: Counter | None = None
    warnings: Counter
    suggestions: Counter
    vulnerable_packages: Counter
    findings: Annotated[tuple[LynisFinding, ...], Field(max_length=MAX_LYNIS_FINDINGS)] = ()
    damaged_lines: Counter = 0
    truncated: Counter = 0


class XccdfScan(WireModel):
    """One run of a benchmark with a profile; `results` counts its rules by XCCDF's own nine words."""

    benchmark: Name
    profile: Text = ""
    age_days: ScanAgeDays | None = None
    score: Percent | None = None
    complete: bool
    results: dict[XccdfResult, Counter]


class XccdfRule(WireModel):
    """A rule that did not pass, under its own id."""

    rule: Name
    result: Literal["fail", "error", "unknown"]
    severity: Literal["unknown", "info", "low", "medium", "high"] = "unknown"
    title: Text = ""


class OpenscapSection(WireModel):
    """The newest result of each benchmark and profile that was found."""

    state: Literal["ok"] = "ok"
    scans: Annotated[tuple[XccdfScan, ...], Field(min_length=1, max_length=MAX_XCCDF_SCANS)]
    rules: Annotated[tuple[XccdfRule, ...], Field(max_length=MAX_XCCDF_RULES)] = ()
    unreadable: Annotated[tuple[Text, ...], Field(max_length=MAX_XCCDF_SCANS)] = ()
    """Result files that could not be read, each with the reason."""
    truncated: Counter = 0


class IntrusionMonitor(WireModel):
    """A monitor whose alerts the agent follows, or cannot follow: `reason` says why."""

    monitor: Keyword
    path: Text
    readable: bool
    running: bool | None = None
    age_days: ScanAgeDays | None = None
    """Since its file was last written to."""
    reason: Text = ""


class IntrusionSection(WireModel):
    """Monitors on this device; what they say travels as events."""

    state: Literal["ok"] = "ok"
    monitors: Annotated[tuple[IntrusionMonitor, ...], Field(min_length=1, max_length=MAX_MONITORS)]


class IntegrityChange(WireModel):
    """A file that is not as it was; `seen_at` when the agent noticed, `modified_at` what the file says of itself."""

    path: Text
    change: Literal["added", "removed", "content", "mode", "owner", "kind"]
    seen_at: Timestamp
    modified_at: Timestamp | None = None


class IntegritySection(WireModel):
    """Files compared with how they were at `baseline_at`; the numbers are counted before `changes` is cut."""

    state: Literal["ok"] = "ok"
    baseline_at: Timestamp
    files: Counter
    changed: Counter
    unread: Counter = 0
    """Files that could not be read, so that nothing is known of them."""
    complete: bool
    """Whether everything below the configured paths was looked at; not when a bound was reached."""
    roots: Annotated[tuple[Text, ...], Field(max_length=MAX_ROOTS)] = ()
    changes: Annotated[tuple[IntegrityChange, ...], Field(max_length=MAX_CHANGES)] = ()
    truncated: Counter = 0
