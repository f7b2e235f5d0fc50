"""The page about policies says what the code does: facts, keys, its own example."""

import re

import pytest

from controller.adapters.policies.loader import parse_policy
from controller.adapters.policies.models import AfterModel, OnFailModel, PolicyModel, RuleModel
from controller.domain.facts import CATALOGUE
from controller.domain.findings import Result, Severity
from controller.domain.policy import Level
from controller.ports.policies import PolicyError
from tests.support.playbook import language
from tests.unit.house.tree import ROOT

PAGE = (ROOT / "docs" / "policies.md").read_text()


def test_the_table_of_facts_is_the_catalogue() -> None:
    section = PAGE[PAGE.index("### Facts") : PAGE.index("## Results")]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| (.+) \|$", section, re.MULTILINE)
    told = {name: (kind.strip("`"), section.strip("` "), meaning) for name, kind, section, meaning in rows}
    expected = {name: (kind, section or "controller", text) for name, (kind, section, text) in CATALOGUE.items()}
    assert told == expected


def test_the_example_of_the_page_loads() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(parse_policy(text, "docs/policies.md", language()).rules) == 3


def test_the_mistake_on_the_page_reads_as_it_is_told() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    mistyped = text.replace("listening_ports", "listening_prots")
    with pytest.raises(PolicyError) as caught:
        parse_policy(mistyped, "policies/baseline.yaml", language())
    assert str(caught.value) in PAGE


def test_every_key_and_word_is_on_the_page() -> None:
    keys = [
        info.alias or name
        for model in (PolicyModel, RuleModel, OnFailModel)
        for name, info in model.model_fields.items()
    ]
    assert [key for key in keys if f"`{key}`" not in PAGE] == []
    assert [name for name in AfterModel.model_fields if f"{name}:" not in PAGE] == []
    assert [word for word in (*Severity, *Level) if f"`{word}`" not in PAGE] == []
    for result in (Result.PASS, Result.FAIL, Result.UNKNOWN, Result.ERROR, Result.NOTAPPLICABLE):
        assert f"| `{result}` |" in PAGE
