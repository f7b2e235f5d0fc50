"""Limits of a report: scan results are sanitised, digested as a whole, then truncated to what the protocol allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from device_agent.domain.report import MAX_HEADER_BYTES, ReportContent
from schemas.base import MAX_NAME, MAX_POSTURE_BYTES, MAX_TEXT, clean_text
from schemas.posture import ReportSections, digest_of
from schemas.sections.access import (
    ACCOUNT_LISTS,
    MAX_ACCOUNTS,
    MAX_ALGORITHMS,
    MAX_OVERRIDES,
    MAX_PORTS,
    MAX_SOURCES,
)
from schemas.sections.crypto import MAX_CERTIFICATES, MAX_KEY_FILES
from schemas.sections.installed import MAX_UPDATED
from schemas.sections.software import (
    MAX_INSTALLED,
    MAX_PACKAGE_SOURCES,
    MAX_PACKAGES,
    MAX_PENDING_NAMES,
    MAX_STALE_PROCESSES,
)
from schemas.sections.system import (
    MAX_CHAINS,
    MAX_CHANGES,
    MAX_MOUNTS,
    MAX_SOCKETS,
    MAX_SWAPS,
    MAX_TARGETS,
    MAX_UNCOVERED,
    MAX_UNITS,
)
from schemas.sections.tools import MAX_CHANGES as MAX_FILE_CHANGES
from schemas.sections.tools import MAX_LYNIS_FINDINGS, MAX_XCCDF_RULES

# The lists of each section that can grow without limit, and how many entries a report may carry.
_LISTS: Final[Mapping[str, Mapping[str, int]]] = {
    "updates": {"packages": MAX_PACKAGES, "pending_names": MAX_PENDING_NAMES, "installed": MAX_INSTALLED},
    "sources": {"entries": MAX_PACKAGE_SOURCES, "keyrings": MAX_PACKAGE_SOURCES},
    "openssl": {"stale_processes": MAX_STALE_PROCESSES},
    "keys": {"entries": MAX_KEY_FILES},
    "certificates": {"entries": MAX_CERTIFICATES},
    "sockets": {"listening": MAX_SOCKETS, "opened": MAX_CHANGES, "closed": MAX_CHANGES},
    "services": {"units": MAX_UNITS, "appeared": MAX_CHANGES, "vanished": MAX_CHANGES},
    "firewall": {"chains": MAX_CHAINS, "uncovered": MAX_UNCOVERED},
    "access": {
        **dict.fromkeys(ACCOUNT_LISTS, MAX_ACCOUNTS),
        "hash_algorithms": MAX_ALGORITHMS,
        "lockout": MAX_ALGORITHMS,
        "failed_logins": MAX_SOURCES,
    },
    "ssh": {"ports": MAX_PORTS, "weak_algorithms": MAX_ALGORITHMS, "overrides": MAX_OVERRIDES},
    "disk": {"mounts": MAX_MOUNTS, "swaps": MAX_SWAPS, "fscrypt": MAX_MOUNTS},
    "lynis": {"findings": MAX_LYNIS_FINDINGS},
    "openscap": {"rules": MAX_XCCDF_RULES},
    "integrity": {"changes": MAX_FILE_CHANGES},
    "software": {"entries": MAX_UPDATED},
    "logging": {"remote_targets": MAX_TARGETS},
}
MAX_LISTED: Final = 64  # entries of an incomplete list without a limit of its own
_SHORT_REASON: Final = 40  # characters
_SHRINK_FACTOR: Final = 0.8  # of each list, while a report is too large
_NAME_KEYS: Final = frozenset({"name", "process"})


@dataclass(frozen=True, slots=True)
class ScanFindings:
    """The result of one scan: JSON-ready sections, each within its limits, and the digest before truncation."""

    sections: Mapping[str, Any]
    digest: str


def normalise_findings(collected: Mapping[str, Mapping[str, Any]]) -> ScanFindings:
    """Sanitises and truncates what the collectors returned; an invalid section becomes `unknown`."""
    sanitised = {name: _sanitise(section, MAX_TEXT) for name, section in collected.items()}
    digest = digest_of(sanitised)
    sections = {name: _validated(name, _truncate_section(name, section)) for name, section in sanitised.items()}
    return ScanFindings(sections, digest)


def truncate_to_size(findings: ScanFindings, max_bytes: int = MAX_POSTURE_BYTES - MAX_HEADER_BYTES) -> ReportContent:
    """Returns the sections as they are sent, in at most `max_bytes`; removed entries are counted as `truncated`.

    Raises:
        ValueError: they do not fit even with empty lists.
    """
    sections = dict(findings.sections)
    while True:
        text = ReportSections.model_validate(sections).model_dump_json(exclude_none=True)
        size = len(text.encode())
        if size <= max_bytes:
            return ReportContent(text, findings.digest)
        shorter = {name: _shrink_lists(name, section) for name, section in sections.items()}
        if shorter == sections:
            raise ValueError(f"a report without its lists still has {size} > {max_bytes} bytes")
        sections = shorter


def _sanitise(value: Any, max_length: int) -> Any:
    if isinstance(value, str):
        return clean_text(value, max_length)
    if isinstance(value, Mapping):
        return {key: _sanitise(item, MAX_NAME if key in _NAME_KEYS else MAX_TEXT) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sanitise(item, max_length) for item in value]
    return value


def _truncate_section(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    section = dict(section)
    limits = _LISTS.get(name, {})
    partial = section.get("partial")
    if partial:
        # The controller already knows that these lists are incomplete: what is cut is not counted.
        section["partial"] = {key: entries[: limits.get(key, MAX_LISTED)] for key, entries in partial.items()}
    present = {key: limit for key, limit in limits.items() if section.get(key) is not None}
    return _truncate_lists(section, present) if present else section


def _shrink_lists(name: str, section: Mapping[str, Any]) -> Mapping[str, Any]:
    shorter = dict(section)
    if partial := section.get("partial"):
        shorter["partial"] = {key: entries[: int(len(entries) * _SHRINK_FACTOR)] for key, entries in partial.items()}
    if gaps := section.get("gaps"):
        shorter["gaps"] = _shrink_gaps(gaps)
    limits = {key: int(len(section[key]) * _SHRINK_FACTOR) for key in _LISTS.get(name, {}) if section.get(key)}
    return _truncate_lists(shorter, limits) if limits else shorter


def _shrink_gaps(gaps: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Keeps one gap of each fact, and then only the beginning of its reason."""
    first = list({gap["fact"]: gap for gap in reversed(gaps)}.values())[::-1]
    if len(first) < len(gaps):
        return first
    return [{"fact": gap["fact"], "reason": gap["reason"][:_SHORT_REASON]} for gap in gaps]


def _truncate_lists(section: Mapping[str, Any], limits: Mapping[str, int]) -> dict[str, Any]:
    removed = sum(max(0, len(section[key]) - limit) for key, limit in limits.items())
    lists = {key: section[key][:limit] for key, limit in limits.items()}
    return {**section, **lists, "truncated": section.get("truncated", 0) + removed}


def _validated(name: str, section: dict[str, Any]) -> dict[str, Any]:
    try:
        ReportSections.model_validate({name: section})
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = clean_text(f"the result does not fit a report: {where}: {first['msg']}")
        return {"state": "unknown", "reason": reason}
    return section
