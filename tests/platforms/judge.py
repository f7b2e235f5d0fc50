"""Scans the roots of the platforms, and judges them with the shipped packs."""

from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import gather_facts
from controller.domain.policy.findings import RuleResult
from device_agent.collectors.registry import collectors_for_image
from device_agent.collectors.scan import Scanner
from device_agent.domain.report_limits import normalise_findings
from schemas.posture import ReportSections
from tests.platforms.roots import Platform, make_root
from tests.support.knowledge import shipped
from tests.support.packs import load_pack
from tests.support.playbook import language

# Each pack, with a class of devices that it applies to.
PACKS: Final = {
    "starter": "",
    "baseline-software": "",
    "baseline-system": "",
    "baseline-tools": "",
    "baseline-strict": "critical",
    "baseline-lax": "lab",
}
_DAY: Final = date(2026, 12, 1)  # on which the shipped knowledge was recent


@cache
def scan(platform: Platform, state: str) -> Mapping[str, Mapping[str, Any]]:
    """Returns the sections of the report of a platform's root."""
    with TemporaryDirectory(prefix="cordon-platform-") as folder:
        image = make_root(platform, Path(folder), state)
        return normalise_findings(Scanner(image, collectors_for_image()).scan()).sections


@cache
def judge(platform: Platform, state: str) -> Mapping[str, RuleResult]:
    """Returns the result of every rule of every pack, by its key."""
    sections = ReportSections.model_validate(scan(platform, state))
    return {
        finding.rule: finding.result
        for pack, device_class in PACKS.items()
        for finding in evaluate_policies(
            load_pack(pack),
            language(),
            gather_facts(sections, "d", device_class, (), knowledge=shipped(_DAY)),
        )
    }
