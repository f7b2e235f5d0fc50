"""The page about policies says what the code does: facts, keys, its own example."""

import re

import pytest

from controller.adapters.policies.loader import parse_policy
from controller.adapters.policies.models import (
    AfterEventsModel,
    AfterModel,
    EventRuleModel,
    OnEventModel,
    OnFailModel,
    PolicyModel,
    RuleModel,
)
from controller.domain.policy.event_rules import EVENT_CATALOGUE
from controller.domain.policy.facts import CATALOGUE
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel, EventTerms
from controller.ports.policies import PolicyError
from tests.support.playbook import language
from tests.support.project_tree import ROOT

PAGE = (ROOT / "docs" / "policies.md").read_text()


def test_the_table_of_facts_is_the_catalogue() -> None:
    section = PAGE[PAGE.index("### Facts") : PAGE.index("## Results")]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| (.+) \|$", section, re.MULTILINE)
    told = {name: (kind.strip("`"), section.strip("` "), meaning) for name, kind, section, meaning in rows}
    expected = {name: (kind, section or "controller", text) for name, (kind, section, text) in CATALOGUE.items()}
    assert told == expected


def test_the_facts_of_an_event_are_its_catalogue() -> None:
    section = PAGE[PAGE.index("| fact of an event |") : PAGE.index("## Durations")]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    assert {name: (kind, meaning) for name, kind, meaning in rows} == EVENT_CATALOGUE


def test_the_examples_of_the_page_load() -> None:
    text, events = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(parse_policy(text, "docs/policies.md", language()).rules) == 3
    (attack,) = parse_policy(events, "docs/policies.md", language()).events
    assert (attack.response.consecutive, attack.event) == (3, EventTerms(600.0, 7200.0))


def test_the_mistake_on_the_page_reads_as_it_is_told() -> None:
    text, _ = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    mistyped = text.replace("exposed_tcp_ports", "exposed_tcp_prots")
    with pytest.raises(PolicyError) as caught:
        parse_policy(mistyped, "policies/baseline.yaml", language())
    assert str(caught.value) in PAGE


def test_every_key_and_word_is_on_the_page() -> None:
    keys = [
        info.alias or name
        for model in (PolicyModel, RuleModel, OnFailModel, EventRuleModel, OnEventModel)
        for name, info in model.model_fields.items()
    ]
    assert [key for key in keys if f"`{key}`" not in PAGE] == []
    names = (*AfterModel.model_fields, *AfterEventsModel.model_fields)
    assert [name for name in names if f"{name}:" not in PAGE] == []
    assert [word for word in (*Severity, *ContainmentLevel) if f"`{word}`" not in PAGE] == []
    for result in (RuleResult.PASS, RuleResult.FAIL, RuleResult.UNKNOWN, RuleResult.ERROR, RuleResult.NOTAPPLICABLE):
        assert f"| `{result}` |" in PAGE
