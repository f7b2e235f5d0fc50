"""Facts about what other tools found: Lynis, OpenSCAP, intrusion monitors, integrity of files."""

from typing import Any, Final

from schemas.sections.tools import IntegritySection, IntrusionSection, LynisSection, OpenscapSection

# Fact: its type, the section it comes from, its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "lynis_complete": ("bool", "lynis", "whether the last run of Lynis came to its end"),
    "lynis_age_days": ("int", "lynis", "days since the last run of Lynis"),
    "lynis_hardening_index": ("int", "lynis", "Lynis's own index, 0 to 100"),
    "lynis_vulnerable_packages": ("int", "lynis", "packages that Lynis calls vulnerable"),
    "lynis_warnings": ("list(string)", "lynis", "tests of Lynis that warn, by their ids"),
    "lynis_suggestions": ("list(string)", "lynis", "tests of Lynis that suggest something, by their ids"),
    "openscap_complete": ("bool", "openscap", "whether every result of OpenSCAP could be read to its end"),
    "openscap_age_days": ("int", "openscap", "days since the oldest of the last runs of each benchmark"),
    "openscap_failures": ("int", "openscap", "rules that OpenSCAP found to fail"),
    "openscap_failed": ("list(string)", "openscap", "those rules, by their ids"),
    "openscap_failed_high": ("list(string)", "openscap", "those of them with severity high"),
    "openscap_undecided": ("list(string)", "openscap", "rules that ended in error or unknown"),
    "intrusion_monitors": ("list(string)", "intrusion", "intrusion monitors whose alerts the agent can read"),
    "intrusion_unreadable": ("list(string)", "intrusion", "intrusion monitors whose alerts it cannot read"),
    "intrusion_stopped": ("list(string)", "intrusion", "intrusion monitors of which no process runs"),
    "intrusion_silent_days": ("int", "intrusion", "days since any intrusion monitor wrote anything"),
    "integrity_complete": ("bool", "integrity", "whether all watched files could be looked at"),
    "integrity_changes": ("int", "integrity", "watched files that are not as they were at the baseline"),
    "integrity_changed_files": ("list(string)", "integrity", "those files"),
}
# Counted by the device before it cut the section's list.
WHOLE: Final = frozenset(
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


def _lynis(section: LynisSection) -> dict[str, Any]:
    return {
        "lynis_complete": section.complete,
        "lynis_age_days": section.age_days,
        "lynis_hardening_index": section.hardening_index,
        "lynis_vulnerable_packages": section.vulnerable_packages,
        "lynis_warnings": sorted({one.test for one in section.findings if one.kind == "warning"}),
        "lynis_suggestions": sorted({one.test for one in section.findings if one.kind == "suggestion"}),
    }


def _openscap(section: OpenscapSection) -> dict[str, Any]:
    ages = [scan.age_days for scan in section.scans]
    failed = [one for one in section.rules if one.result == "fail"]
    return {
        "openscap_complete": not section.unreadable and all(scan.complete for scan in section.scans),
        "openscap_age_days": None if None in ages else max(age for age in ages if age is not None),
        "openscap_failures": sum(scan.results.get("fail", 0) for scan in section.scans),
        "openscap_failed": sorted({one.rule for one in failed}),
        "openscap_failed_high": sorted({one.rule for one in failed if one.severity == "high"}),
        "openscap_undecided": sorted({one.rule for one in section.rules if one.result != "fail"}),
    }


def _intrusion(section: IntrusionSection) -> dict[str, Any]:
    ages = [one.age_days for one in section.monitors if one.readable and one.age_days is not None]
    running = [one.running for one in section.monitors]
    return {
        "intrusion_monitors": sorted({one.monitor for one in section.monitors if one.readable}),
        "intrusion_unreadable": sorted({one.monitor for one in section.monitors if not one.readable}),
        "intrusion_stopped": None
        if None in running
        else sorted({one.monitor for one in section.monitors if one.running is False}),
        "intrusion_silent_days": min(ages) if ages else None,
    }


def _integrity(section: IntegritySection) -> dict[str, Any]:
    return {
        "integrity_complete": section.complete and section.unread == 0,
        "integrity_changes": section.changed,
        "integrity_changed_files": sorted({one.path for one in section.changes}),
    }


READERS: Final[tuple[tuple[str, Any], ...]] = (
    ("lynis", _lynis),
    ("openscap", _openscap),
    ("intrusion", _intrusion),
    ("integrity", _integrity),
)
