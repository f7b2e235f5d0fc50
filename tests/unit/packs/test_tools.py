"""The pack about other tools judges what they say as its titles promise."""

from functools import cache
from typing import Any

import pytest

from controller.adapters.policies.loader import load_policies
from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import gather_facts
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel, PolicySet
from controller.packs import pack_path
from schemas.posture import ReportSections
from tests.support.good_tools import GOOD_TOOLS
from tests.support.playbook import language


@cache
def pack() -> PolicySet:
    return load_policies([pack_path("baseline-tools")], language())


def failing(result: RuleResult = RuleResult.FAIL, **sections: dict[str, Any]) -> set[str]:
    merged = {key: {**value, **sections.get(key, {})} for key, value in GOOD_TOOLS.items()}
    facts = gather_facts(ReportSections.model_validate(merged), "d", "", ())
    return {one.rule.partition("/")[2] for one in evaluate_policies(pack(), language(), facts) if one.result is result}


def lynis(kind: str, test: str) -> dict[str, Any]:
    return {"lynis": {"findings": [{"test": test, "kind": kind, "message": "m"}]}}


def scan(**changes: Any) -> dict[str, Any]:
    (good,) = GOOD_TOOLS["openscap"]["scans"]
    return {"openscap": {"scans": [{**good, **changes}]}}


def rule(result: str, severity: str) -> dict[str, Any]:
    return {"openscap": {"rules": [{"rule": "r", "result": result, "severity": severity}]}}


def monitor(**changes: Any) -> dict[str, Any]:
    (good,) = GOOD_TOOLS["intrusion"]["monitors"]
    return {"intrusion": {"monitors": [{**good, **changes}]}}


def changed(path: str) -> dict[str, Any]:
    change = {"path": path, "change": "content", "seen_at": "2026-11-23T10:00:00Z"}
    return {"integrity": {"changed": 1, "changes": [change]}}


@pytest.mark.parametrize(
    ("sections", "rules"),
    [
        ({}, set()),
        ({"lynis": {"age_days": 36}}, {"lynis-recent"}),
        ({"lynis": {"complete": False}}, {"lynis-complete"}),
        ({"lynis": {"hardening_index": 59}}, {"lynis-hardened"}),
        ({"lynis": {"vulnerable_packages": 1}}, {"lynis-no-vulnerable-packages"}),
        (lynis("warning", "LOGG-2138"), {"lynis-no-warnings"}),
        (lynis("suggestion", "AUTH-9283"), set()),
        (lynis("warning", "AUTH-9283"), {"lynis-no-warnings", "lynis-no-open-accounts"}),
        (scan(age_days=36), {"openscap-recent"}),
        (scan(complete=False), {"openscap-complete"}),
        ({"openscap": {"unreadable": ["/x: torn"]}}, {"openscap-complete"}),
        (scan(results={"pass": 1, "fail": 11}), {"openscap-few-failures"}),
        (rule("fail", "high"), {"openscap-no-high-failures"}),
        (rule("fail", "medium"), set()),
        (rule("error", "high"), {"openscap-all-decided"}),
        (monitor(running=False), {"intrusion-monitor-runs"}),
        (monitor(age_days=31), {"intrusion-monitor-speaks"}),
        ({"integrity": {"unread": 1}}, {"files-all-seen"}),
        (changed("/etc/passwd"), {"files-unchanged"}),
        (changed("/etc/ld.so.preload"), {"files-unchanged", "no-forced-library"}),
    ],
)
def test_the_pack_finds(sections: dict[str, Any], rules: set[str]) -> None:
    assert failing(**sections) == rules


def test_alerts_that_cannot_be_read_are_found_and_say_nothing_of_silence() -> None:
    hidden = monitor(readable=False, age_days=None, reason="needs root")
    assert failing(**hidden) == {"intrusion-alerts-readable"}
    assert failing(RuleResult.UNKNOWN, **hidden) == {"intrusion-monitor-speaks"}


def test_a_list_that_was_cut_passes_nothing_that_needs_all_of_it() -> None:
    cut = {"lynis": {"truncated": 3}, "openscap": {"truncated": 3}, "integrity": {"truncated": 3}}
    assert failing(RuleResult.UNKNOWN, **cut) == {
        "lynis-no-warnings",
        "lynis-no-open-accounts",
        "openscap-no-high-failures",
        "openscap-all-decided",
        "no-forced-library",
    }


def test_a_device_without_these_tools_is_not_judged_by_them() -> None:
    absent = {name: {"state": "notapplicable", "reason": "not installed"} for name in GOOD_TOOLS}
    facts = gather_facts(ReportSections.model_validate(absent), "d", "", ())
    assert {one.result for one in evaluate_policies(pack(), language(), facts)} == {RuleResult.NOTAPPLICABLE}


def test_only_a_forced_library_and_critical_alerts_contain() -> None:
    levels = {
        key: one.response.contain
        for key, one in pack().rules.items()
        if one.response.contain is not ContainmentLevel.NONE
    }
    assert levels == {
        "baseline-tools/no-forced-library": ContainmentLevel.RESTRICTED,
        "baseline-tools/no-critical-alerts": ContainmentLevel.RESTRICTED,
    }
