"""Facts about the results of other tools: Lynis, OpenSCAP, intrusion monitors, file integrity."""

from collections.abc import Mapping
from typing import Any, Final

from schemas.sections.tools import IntegritySection, IntrusionSection, LynisSection, OpenscapSection

# Fact: its type, the section it comes from, its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "lynis_complete": ("bool", "lynis", "whether the last run of Lynis was complete"),
    "lynis_age_days": ("int", "lynis", "days since the last run of Lynis"),
    "lynis_hardening_index": ("int", "lynis", "Lynis's own index, 0 to 100"),
    "lynis_vulnerable_packages": ("int", "lynis", "packages that Lynis reports as vulnerable"),
    "lynis_warnings": ("list(string)", "lynis", "ids of Lynis tests with a warning"),
    "lynis_suggestions": ("list(string)", "lynis", "ids of Lynis tests with a suggestion"),
    "openscap_complete": ("bool", "openscap", "whether all results of OpenSCAP could be read completely"),
    "openscap_age_days": ("int", "openscap", "days since the oldest of the last runs of each benchmark"),
    "openscap_failures": ("int", "openscap", "number of rules that OpenSCAP reports as failed"),
    "openscap_failed": ("list(string)", "openscap", "ids of those rules"),
    "openscap_failed_high": ("list(string)", "openscap", "ids of those with severity high"),
    "openscap_undecided": ("list(string)", "openscap", "ids of rules with the result error or unknown"),
    "intrusion_monitors": ("list(string)", "intrusion", "intrusion monitors whose alerts the agent can read"),
    "intrusion_unreadable": ("list(string)", "intrusion", "intrusion monitors whose alerts the agent cannot read"),
    "intrusion_stopped": ("list(string)", "intrusion", "intrusion monitors without a running process"),
    "intrusion_silent_days": ("int", "intrusion", "days since the last output of any intrusion monitor"),
    "integrity_complete": ("bool", "integrity", "whether all watched files could be read"),
    "integrity_changes": ("int", "integrity", "number of watched files that differ from the baseline"),
    "integrity_changed_files": ("list(string)", "integrity", "paths of those files"),
}
# Facts that the device counts before it truncates the section's list.
COMPLETE: Final = frozenset(
    {
        "lynis_complete",
        "lynis_age_days",
        "lynis_hardening_index",
        "lynis_vulnerable_packages",
        "openscap_complete",
        "openscap_age_days",
        "openscap_failures",
        "integrity_complete",
        "integrity_changes",
    }
)


# The section's fields behind each fact; devices name the field in their gaps.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "lynis_complete": ("complete",),
    "lynis_age_days": ("age_days",),
    "lynis_hardening_index": ("hardening_index",),
    "lynis_vulnerable_packages": ("vulnerable_packages",),
    "lynis_warnings": ("findings",),
    "lynis_suggestions": ("findings",),
    "openscap_complete": ("scans", "unreadable"),
    "openscap_age_days": ("scans",),
    "openscap_failures": ("scans", "rules"),
    **dict.fromkeys(("openscap_failed", "openscap_failed_high", "openscap_undecided"), ("rules",)),
    **{name: ("monitors",) for name, (_, section, _) in CATALOGUE.items() if section == "intrusion"},
    "integrity_complete": ("complete", "unread"),
    "integrity_changes": ("changed",),
    "integrity_changed_files": ("changes",),
}
# Numbers of which a part of the entries shows a lower bound.
GROWING: Final = frozenset({"openscap_failures", "integrity_changes"})


def _lynis(section: LynisSection) -> dict[str, Any]:
    return {
        "lynis_complete": section.complete,
        "lynis_age_days": section.age_days,
        "lynis_hardening_index": section.hardening_index,
        "lynis_vulnerable_packages": section.vulnerable_packages,
        "lynis_warnings": sorted({finding.test for finding in section.findings if finding.kind == "warning"}),
        "lynis_suggestions": sorted({finding.test for finding in section.findings if finding.kind == "suggestion"}),
    }


def _openscap(section: OpenscapSection) -> dict[str, Any]:
    ages = [scan.age_days for scan in section.scans]
    failed = [rule for rule in section.rules if rule.result == "fail"]
    return {
        "openscap_complete": not section.unreadable and all(scan.complete for scan in section.scans),
        "openscap_age_days": None if None in ages else max(age for age in ages if age is not None),
        "openscap_failures": sum(scan.results.get("fail", 0) for scan in section.scans),
        "openscap_failed": sorted({rule.rule for rule in failed}),
        "openscap_failed_high": sorted({rule.rule for rule in failed if rule.severity == "high"}),
        "openscap_undecided": sorted({rule.rule for rule in section.rules if rule.result != "fail"}),
    }


def _intrusion(section: IntrusionSection) -> dict[str, Any]:
    monitors = section.monitors
    ages = [monitor.age_days for monitor in monitors if monitor.readable and monitor.age_days is not None]
    stopped = sorted({monitor.monitor for monitor in monitors if monitor.running is False})
    is_unknown = any(monitor.running is None for monitor in monitors)
    return {
        "intrusion_monitors": sorted({monitor.monitor for monitor in monitors if monitor.readable}),
        "intrusion_unreadable": sorted({monitor.monitor for monitor in monitors if not monitor.readable}),
        "intrusion_stopped": None if is_unknown else stopped,
        "intrusion_silent_days": min(ages) if ages else None,
    }


def _integrity(section: IntegritySection) -> dict[str, Any]:
    return {
        "integrity_complete": section.complete and section.unread == 0,
        "integrity_changes": section.changed,
        "integrity_changed_files": sorted({change.path for change in section.changes}),
    }


READERS: Final[tuple[tuple[str, Any], ...]] = (
    ("lynis", _lynis),
    ("openscap", _openscap),
    ("intrusion", _intrusion),
    ("integrity", _integrity),
)
