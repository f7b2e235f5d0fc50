"""Sections of a passing device: results of other tools."""

from typing import Any, Final

GOOD_TOOLS: Final[dict[str, dict[str, Any]]] = {
    "lynis": {
        "state": "ok",
        "version": "3.0.8",
        "age_days": 3,
        "complete": True,
        "hardening_index": 78,
        "tests": 255,
        "warnings": 0,
        "suggestions": 1,
        "vulnerable_packages": 0,
        "findings": [{"test": "LYNIS", "kind": "suggestion", "message": "This release is old"}],
    },
    "openscap": {
        "state": "ok",
        "scans": [
            {
                "benchmark": "xccdf_example_benchmark_1",
                "profile": "xccdf_example_profile_1",
                "age_days": 3,
                "score": 98,
                "complete": True,
                "results": {"pass": 57, "fail": 1, "notapplicable": 4},
            }
        ],
        "rules": [{"rule": "xccdf_example_rule_1", "result": "fail", "severity": "low", "title": "A rule"}],
    },
    "intrusion": {
        "state": "ok",
        "monitors": [
            {
                "monitor": "suricata",
                "path": "/var/log/suricata/eve.json",
                "readable": True,
                "running": True,
                "age_days": 0,
            }
        ],
    },
    "integrity": {
        "state": "ok",
        "baseline_at": "2026-11-01T00:00:00Z",
        "files": 400,
        "changed": 0,
        "complete": True,
        "roots": ["/etc/passwd"],
    },
}
