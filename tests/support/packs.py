"""The shipped packs, and a device that passes them all."""

from functools import cache
from typing import Any, Final

from controller.adapters.policies.loader import load_policies
from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import gather_facts
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import PolicySet
from controller.packs import pack_path
from schemas.posture import ReportSections
from tests.support.good_software import GOOD_SOFTWARE
from tests.support.good_system import GOOD_SYSTEM
from tests.support.good_tools import GOOD_TOOLS
from tests.support.knowledge import shipped
from tests.support.playbook import language

GOOD_DEVICE: Final[dict[str, dict[str, Any]]] = {
    "os": {"state": "ok", "id": "debian", "version": "12", "kernel": "6.1.0-41-amd64", "machine": "x86_64"},
    **GOOD_SYSTEM,
    **GOOD_SOFTWARE,
    **GOOD_TOOLS,
}


@cache
def load_pack(name: str) -> PolicySet:
    return load_policies([pack_path(name)], language())


def failing_rules(name: str, result: RuleResult = RuleResult.FAIL, **sections: dict[str, Any]) -> set[str]:
    """The rules of a pack that give this result for the good device with these changes, without the pack's name."""
    merged = {key: {**value, **sections.get(key, {})} for key, value in GOOD_DEVICE.items()}
    facts = gather_facts(ReportSections.model_validate(merged), "d", "", (), knowledge=shipped())
    return {
        one.rule.partition("/")[2]
        for one in evaluate_policies(load_pack(name), language(), facts)
        if one.result is result
    }


def listening(number: int, address: str = "0.0.0.0", process: str = "x", proto: str = "tcp") -> dict[str, Any]:
    """A change of the good device: one listening socket."""
    return {"sockets": {"listening": [{"proto": proto, "address": address, "port": number, "process": process}]}}
