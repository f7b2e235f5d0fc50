"""Makes what a scan found fit to travel: cleaned, digested over everything, then cut to what the wire allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from device_agent.domain.report import MAX_HEAD_BYTES, ReportContent
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
from schemas.sections.software import MAX_INSTALLED, MAX_PACKAGE_SOURCES, MAX_PACKAGES, MAX_STALE_PROCESSES
from schemas.sections.system import (
    MAX_CHAINS,
    MAX_CHANGES,
    MAX_GAPS,
    MAX_MOUNTS,
    MAX_SOCKETS,
    MAX_SWAPS,
    MAX_TARGETS,
    MAX_UNCOVERED,
    MAX_UNITS,
)
from schemas.sections.tools import MAX_CHANGES as MAX_FILE_CHANGES
from schemas.sections.tools import MAX_LYNIS_FINDINGS, MAX_XCCDF_RULES

# The lists of each section that can grow without limit, and how many of their entries a report may carry.
_LISTS: Final[Mapping[str, Mapping[str, int]]] = {
    "updates": {"packages": MAX_PACKAGES, "installed": MAX_INSTALLED},
    "sources": {"entries": MAX_PACKAGE_SOURCES, "keyrings": MAX_PACKAGE_SOURCES},
    "openssl": {"stale_processes": MAX_STALE_PROCESSES},
    "keys": {"entries": MAX_KEY_FILES},
    "certificates": {"entries": MAX_CERTIFICATES},
    "sockets": {"listening": MAX_SOCKETS, "opened": MAX_CHANGES, "closed": MAX_CHANGES},
    "services": {"units": MAX_UNITS, "appeared": MAX_CHANGES, "vanished": MAX_CHANGES},
    "firewall": {"chains": MAX_CHAINS, "uncovered": MAX_UNCOVERED, "gaps": MAX_GAPS},
    "access": {
        **dict.fromkeys(ACCOUNT_LISTS, MAX_ACCOUNTS),
        "hash_algorithms": MAX_ALGORITHMS,
        "lockout": MAX_ALGORITHMS,
        "failed_logins": MAX_SOURCES,
        "gaps": MAX_GAPS,
    },
    "ssh": {"ports": MAX_PORTS, "weak_algorithms": MAX_ALGORITHMS, "overrides": MAX_OVERRIDES, "gaps": MAX_GAPS},
    "disk": {"mounts": MAX_MOUNTS, "swaps": MAX_SWAPS, "fscrypt": MAX_MOUNTS, "gaps": MAX_GAPS},
    "mac": {"gaps": MAX_GAPS},
    "lynis": {"findings": MAX_LYNIS_FINDINGS},
    "openscap": {"rules": MAX_XCCDF_RULES},
    "integrity": {"changes": MAX_FILE_CHANGES},
    "software": {"entries": MAX_UPDATED},
    "logging": {"remote_targets": MAX_TARGETS, "gaps": MAX_GAPS},
}
_SHRINK: Final = 0.8  # of each list, when a report is still too large
_NAME_KEYS: Final = frozenset({"name", "process"})


@dataclass(frozen=True, slots=True)
class ScanFindings:
    """One scan: JSON-ready sections, cut to the wire's limits, and the digest of all that was found before cutting."""

    sections: Mapping[str, Any]
    digest: str


def findings_of(collected: Mapping[str, Mapping[str, Any]]) -> ScanFindings:
    """Turn what the collectors returned into findings; a section the wire would refuse becomes `unknown`."""
    cleaned = {name: _clean(section, MAX_TEXT) for name, section in collected.items()}
    digest = digest_of(cleaned)
    return ScanFindings(
        sections={name: _valid(name, _cut(name, section)) for name, section in cleaned.items()}, digest=digest
    )


def fit(findings: ScanFindings, limit: int = MAX_POSTURE_BYTES - MAX_HEAD_BYTES) -> ReportContent:
    """The sections as they travel, in at most `limit` bytes; lists are shortened, and counted as `truncated`.

    Raises:
        ValueError: they do not fit even with empty lists.
    """
    sections = dict(findings.sections)
    while True:
        text = ReportSections.model_validate(sections).model_dump_json(exclude_none=True)
        size = len(text.encode())
        if size <= limit:
            return ReportContent(text, findings.digest)
        shorter = {name: _shrink(name, section) for name, section in sections.items()}
        if shorter == sections:
            raise ValueError(f"a report without its lists still has {size} > {limit} bytes")
        sections = shorter


def _clean(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return clean_text(value, limit)
    if isinstance(value, Mapping):
        return {key: _clean(item, MAX_NAME if key in _NAME_KEYS else MAX_TEXT) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item, limit) for item in value]
    return value


def _cut_to(section: Mapping[str, Any], keep: Mapping[str, int]) -> dict[str, Any]:
    lost = sum(max(0, len(section[key]) - count) for key, count in keep.items())
    short = {key: section[key][:count] for key, count in keep.items()}
    return {**section, **short, "truncated": section.get("truncated", 0) + lost}


def _cut(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    limits = {key: limit for key, limit in _LISTS.get(name, {}).items() if section.get(key) is not None}
    return _cut_to(section, limits) if limits else dict(section)


def _shrink(name: str, section: Mapping[str, Any]) -> Mapping[str, Any]:
    shorter = {key: int(len(section[key]) * _SHRINK) for key in _LISTS.get(name, {}) if section.get(key)}
    return _cut_to(section, shorter) if shorter else section


def _valid(name: str, section: dict[str, Any]) -> dict[str, Any]:
    try:
        ReportSections.model_validate({name: section})
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return {
            "state": "unknown",
            "reason": clean_text(f"what was found does not fit a report: {where}: {first['msg']}"),
        }
    return section
