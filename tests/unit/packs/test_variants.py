"""The variants by device class: stricter on top of the baseline, laxer in its place."""

from typing import Any

import pytest

from controller.domain.policy.evaluate import evaluate_policies
from controller.domain.policy.facts import gather_facts
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from controller.packs import pack_names
from device_agent.actions.base import InvalidParamsError
from device_agent.actions.registry import actions
from device_agent.host.system import System
from schemas.posture import ReportSections
from tests.support.packs import GOOD_DEVICE, listening, load_pack
from tests.support.playbook import language


def found(name: str, device_class: str, result: RuleResult, **sections: dict[str, Any]) -> set[str]:
    merged = {key: {**value, **sections.get(key, {})} for key, value in GOOD_DEVICE.items()}
    facts = gather_facts(ReportSections.model_validate(merged), "d", device_class, ())
    return {
        one.rule.partition("/")[2]
        for one in evaluate_policies(load_pack(name), language(), facts)
        if one.result is result
    }


def failing_rules(name: str, device_class: str, **sections: dict[str, Any]) -> set[str]:
    return found(name, device_class, RuleResult.FAIL, **sections)


@pytest.mark.parametrize(("name", "device_class"), [("baseline-strict", "critical"), ("baseline-lax", "lab")])
def test_a_variant_is_for_its_class_alone(name: str, device_class: str) -> None:
    rules = {key.partition("/")[2] for key, rule in load_pack(name).rules.items() if rule.event is None}
    assert found(name, "", RuleResult.NOTAPPLICABLE) == rules
    assert found(name, "other", RuleResult.NOTAPPLICABLE) == rules
    assert failing_rules(name, device_class, **listening(23)) != set()


def test_a_healthy_device_keeps_the_stricter_one_once_its_updates_are_in() -> None:
    assert failing_rules("baseline-strict", "critical") == {"security-updates-in-three-days"}
    for result in (RuleResult.FAIL, RuleResult.UNKNOWN, RuleResult.ERROR):
        assert found("baseline-strict", "critical", result, updates={"security_pending": 0}) == set()
        assert found("baseline-lax", "lab", result) == set()


def test_the_stricter_one_finds_what_the_baseline_lets_pass() -> None:
    ports = [{"proto": "tcp", "address": "::", "port": 8000 + n, "process": "x"} for n in range(6)]
    sections: dict[str, dict[str, Any]] = {"sockets": {"listening": ports}, "ssh": {"max_auth_tries": 5}}
    assert {"very-few-open-ports", "ssh-few-tries"} <= failing_rules("baseline-strict", "critical", **sections)
    base = failing_rules("baseline-system", "critical", **sections)
    assert not {"few-open-ports", "ssh-few-tries"} & base


def test_the_laxer_one_lets_pass_what_the_baseline_finds() -> None:
    ports = [{"proto": "tcp", "address": "::", "port": 8000 + n, "process": "x"} for n in range(20)]
    sections: dict[str, dict[str, Any]] = {
        "sockets": {"listening": ports},
        "firewall": {"active": False, "default_input": "accept"},
    }
    assert {"few-open-ports", "firewall-on"} <= failing_rules("baseline-system", "lab", **sections)
    assert failing_rules("baseline-lax", "lab", **sections) == set()
    assert failing_rules("baseline-lax", "lab", **listening(2375)) == {"no-open-docker-api"}


def test_what_they_contain_for() -> None:
    contained = {
        name: {
            key.partition("/")[2]
            for key, rule in load_pack(name).rules.items()
            if rule.response.contain is not ContainmentLevel.NONE
        }
        for name in ("baseline-strict", "baseline-lax")
    }
    assert contained == {
        "baseline-strict": {"no-insecure-services", "no-empty-passwords", "no-critical-alert"},
        "baseline-lax": {"no-open-docker-api", "no-empty-passwords-over-network"},
    }


@pytest.mark.parametrize("name", pack_names())
def test_every_repair_is_an_action_that_takes_these_parameters(name: str) -> None:
    known = actions(System())
    for rule in load_pack(name).rules.values():
        remedy = rule.response.remedy
        if remedy is None:
            continue
        try:
            known[remedy.action].check(dict(remedy.params))
        except InvalidParamsError as e:
            pytest.fail(f"{rule.key}: {e}")
