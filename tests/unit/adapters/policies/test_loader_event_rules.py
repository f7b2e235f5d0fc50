"""Rules about events in policy files, and what is wrong with them."""

from pathlib import Path

import pytest

from controller.adapters.policies.loader import load_policies, parse_policy
from controller.domain.policy.model import ContainmentLevel, EventTerms, Remedy, RuleResponse
from controller.ports.policies import PolicyError
from tests.support.playbook import language

HEAD = "policy: p\nversion: 1\ntitle: t\napplies_to: 'device.class == \"a\"'\nevents:\n"
RULE = "  - id: a\n    title: t\n    severity: low\n    when: event.rank > 2\n"


def wrong(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "f", language())
    return [f"{one.line}:{one.column}: {one.message}" for one in caught.value.problems]


def test_a_whole_one() -> None:
    more = "    on_event: {after: {count: 7, within: 5m}, contain: isolated, for: 2h, remediate: {action: rescan}}\n"
    policy = parse_policy(HEAD + RULE + more, "f", language())
    (rule,) = policy.events
    assert (rule.key, rule.event) == ("p/a", EventTerms(300.0, 7200.0))
    assert rule.response == RuleResponse(ContainmentLevel.ISOLATED, Remedy("rescan"), 7, 0.0, 7200.0)
    assert rule.applies_if is not None
    assert policy.rules == ()


def test_events_alone_pass_no_report(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HEAD + RULE)
    with pytest.raises(PolicyError, match="would pass every report"):
        load_policies([tmp_path], language())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (RULE.replace("event.rank", "event.rang"), "9:16: rule a: undeclared reference to 'event.rang'"),
        (RULE.replace("event.rank > 2", "firewall_active"), "9:11: rule a: undeclared reference to 'firewall_active'"),
        (RULE.replace("when", "check"), "9:5: rule a: unknown key 'check'"),
        (RULE + "    on_event: {for: 0s}\n", "10:16: rule a: 'for' has to be longer than nothing"),
        (RULE + "    on_event: {after: {within: 0s}}\n", "10:32: rule a: 'within' has to be longer than nothing"),
        (RULE + "    on_event: {after: {consecutive: 2}}\n", "10:24: rule a: unknown key 'consecutive'"),
        (RULE + "    on_fail: {contain: none}\n", "10:5: rule a: unknown key 'on_fail'"),
        (RULE + RULE, "10:9: rule 'a' is a duplicate: first in line 6"),
    ],
)
def test_what_a_rule_gets_wrong(text: str, problem: str) -> None:
    told = wrong(HEAD + text)
    assert any(one.startswith(problem) for one in told), told


def test_a_policy_with_events_selects_by_what_is_known_without_a_report() -> None:
    (told,) = wrong((HEAD + RULE).replace("'device.class == \"a\"'", "firewall_active"))
    assert told.startswith(
        "4:13: applies_to: a policy with events may select by device.class, device.id, device.tags only"
    )
    assert "not by firewall_active" in told


@pytest.mark.parametrize(
    ("remedy", "problem"),
    [
        ("{action: servce.disable}", "10:36: rule a: remediate: there is no action 'servce.disable': did you mean"),
        ("{action: port.close, params: {prt: 23}}", "10:57: rule a: remediate: port.close has no parameter 'prt'"),
        ("{action: port.close, params: {port: 0}}", "10:63: rule a: remediate: port must be from 1 to 65535"),
        ("{action: port.close}", "10:36: rule a: remediate: port.close needs the parameter 'port'"),
        ("{action: scan.run, params: {tool: nmap}}", "10:61: rule a: remediate: tool must be one of lynis, openscap"),
    ],
)
def test_a_remedy_that_no_device_knows(remedy: str, problem: str) -> None:
    told = wrong(HEAD + RULE + f"    on_event: {{remediate: {remedy}}}\n")
    assert any(one.startswith(problem) for one in told), told
