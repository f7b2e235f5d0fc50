"""The table of actions: what the agent takes, no more and no less, as far as a table can say it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.actions.base import InvalidParamsError
from device_agent.actions.integrity import RebaselineIntegrity
from device_agent.actions.registry import actions
from device_agent.actions.ssh import _OPTIONS
from device_agent.actions.trust import RevokeKey, TrustKey
from device_agent.collectors.tools.file_integrity import IntegrityCollector
from device_agent.host.system import System
from device_agent.keyring import Keyring
from device_agent.settings import IntegritySettings
from schemas.actions import ACTIONS, SSH_OPTIONS, problems_of, unknown_action
from schemas.export import documents
from schemas.updates import GO_BACK, INSTALL

REGISTRY = {
    **actions(System()),
    "keys.introduce": TrustKey(Keyring(Path("/nowhere"), ())),
    "keys.revoke": RevokeKey(Keyring(Path("/nowhere"), ())),
    "integrity.rebaseline": RebaselineIntegrity(
        IntegrityCollector(IntegritySettings(), Path("/nowhere"), is_baseline_owner=False), System()
    ),
}
GOOD: dict[str, dict[str, Any]] = {
    "account.lock": {"name": "guest"},
    "firewall.allow": {"port": 22, "proto": "tcp", "within": 30},
    "firewall.deny": {"port": 23},
    "firewall.enable": {"allow": "22/tcp 53/udp"},
    "keys.introduce": {"key": "ed25519:" + "A" * 43 + "=", "retire": "0" * 16, "overlap": 3600},
    "keys.revoke": {"keyid": "0" * 16},
    "key.restrict": {"path": "/etc/ssl/private/a.key", "keep_group": True},
    "package.upgrade": {"security": True},
    "password.policy": {"min_length": 12, "max_days": 365},
    "port.close": {"port": 23},
    "scan.run": {"tool": "lynis"},
    "service.disable": {"name": "telnetd"},
    "source.disable": {"source": "http://example.org/debian"},
    "ssh.set": {"option": "MaxAuthTries", "value": 4},
}
# What depends on the device or on more than one parameter, and a table cannot say.
BEYOND = (
    "root is not locked",
    "switch itself off",
    "min_classes: pwquality",
    "value: not a value",
    "security: true",
    "ports",
)
VALUES = st.one_of(
    st.booleans(), st.integers(-5, 70000), st.sampled_from(["a", "telnetd", "22/tcp", "/x", "yes", "-x", ""])
)


def test_the_table_has_every_action_of_the_agent() -> None:
    assert set(ACTIONS) == {*REGISTRY, INSTALL, GO_BACK}
    assert set(SSH_OPTIONS) == set(_OPTIONS)


def refusal(name: str, params: dict[str, Any]) -> str:
    """Why the agent refuses these parameters; empty when it takes them."""
    try:
        REGISTRY[name].check(params)
    except InvalidParamsError as e:
        return str(e)
    return ""


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_what_is_good_is_good_for_both(name: str) -> None:
    params = GOOD.get(name, {})
    assert problems_of(name, params) == ()
    REGISTRY[name].check(params)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_both_judge_parameters_alike(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(REGISTRY)))
    known = [*ACTIONS[name].params, "other"]
    drawn = data.draw(st.dictionaries(st.sampled_from(known), VALUES, max_size=3))
    params = {**GOOD.get(name, {}), **drawn} if data.draw(st.booleans()) else drawn
    problems, refused = problems_of(name, params), refusal(name, params)
    if problems:
        assert refused, (name, params, problems)
    else:
        assert not refused or any(words in refused for words in BEYOND), (name, params, refused)


@pytest.mark.parametrize(
    ("name", "params", "problem"),
    [
        ("service.disable", {}, "service.disable needs the parameter 'name'"),
        ("service.disable", {"nam": "x"}, "service.disable has no parameter 'nam': did you mean 'name'?"),
        ("service.disable", {"name": 3}, "name has to be text"),
        ("service.disable", {"name": "-x"}, "name is no the name of a service"),
        ("port.close", {"port": 0}, "port is from 1 to 65535"),
        ("port.close", {"port": True}, "port has to be a whole number"),
        ("scan.run", {"tool": "lyniss"}, "tool is one of lynis, openscap: did you mean 'lynis'?"),
        ("package.upgrade", {}, "package.upgrade needs at least one of name, security"),
        ("package.upgrade", {"name": "a1", "security": True}, "'name' of package.upgrade bears no other"),
        ("rescan", {"now": True}, "rescan has no parameter 'now'"),
    ],
)
def test_what_is_wrong_is_said(name: str, params: dict[str, Any], problem: str) -> None:
    assert any(told.startswith(problem) for _, told in problems_of(name, params)), problems_of(name, params)


def test_an_unknown_action_has_a_likely_one_beside_it() -> None:
    assert unknown_action("servce.disable") == "there is no action 'servce.disable': did you mean 'service.disable'?"
    assert unknown_action("rescan") == ""


@pytest.mark.parametrize("name", sorted(GOOD))
def test_the_exported_schema_says_the_same(name: str) -> None:
    schema = json.loads(documents()["json/actions.schema.json"])["$defs"][name]
    jsonschema.validate(GOOD[name], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**GOOD[name], "other": 1}, schema)
