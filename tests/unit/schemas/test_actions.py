"""The table of actions agrees with the parameters that the agent accepts."""

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
from schemas.actions import ACTIONS, SSH_OPTIONS, param_problems, unknown_action_problem
from schemas.export import documents
from schemas.updates import INSTALL, ROLL_BACK

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
# Errors that depend on the device or on several parameters, which the table does not describe.
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
    assert set(ACTIONS) == {*REGISTRY, INSTALL, ROLL_BACK}
    assert set(SSH_OPTIONS) == set(_OPTIONS)


def agent_error(name: str, params: dict[str, Any]) -> str:
    """Returns the agent's error for these parameters; empty when it accepts them."""
    try:
        REGISTRY[name].check(params)
    except InvalidParamsError as e:
        return str(e)
    return ""


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_valid_parameters_are_valid_for_table_and_agent(name: str) -> None:
    params = GOOD.get(name, {})
    assert param_problems(name, params) == ()
    REGISTRY[name].check(params)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_table_and_agent_agree_on_any_parameters(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(REGISTRY)))
    known = [*ACTIONS[name].params, "other"]
    drawn = data.draw(st.dictionaries(st.sampled_from(known), VALUES, max_size=3))
    params = {**GOOD.get(name, {}), **drawn} if data.draw(st.booleans()) else drawn
    problems, error = param_problems(name, params), agent_error(name, params)
    if problems:
        assert error, (name, params, problems)
    else:
        assert not error or any(text in error for text in BEYOND), (name, params, error)


@pytest.mark.parametrize(
    ("name", "params", "problem"),
    [
        ("service.disable", {}, "service.disable needs the parameter 'name'"),
        ("service.disable", {"nam": "x"}, "service.disable has no parameter 'nam': did you mean 'name'?"),
        ("service.disable", {"name": 3}, "name must be text"),
        ("service.disable", {"name": "-x"}, "name must be the name of a service"),
        ("port.close", {"port": 0}, "port must be from 1 to 65535"),
        ("port.close", {"port": True}, "port must be a whole number"),
        ("scan.run", {"tool": "lyniss"}, "tool must be one of lynis, openscap: did you mean 'lynis'?"),
        ("package.upgrade", {}, "package.upgrade needs at least one of name, security"),
        ("package.upgrade", {"name": "a1", "security": True}, "'name' of package.upgrade excludes all other"),
        ("rescan", {"now": True}, "rescan has no parameter 'now'"),
    ],
)
def test_errors_in_parameters_are_described(name: str, params: dict[str, Any], problem: str) -> None:
    assert any(text.startswith(problem) for _, text in param_problems(name, params)), param_problems(name, params)


def test_the_error_of_an_unknown_action_suggests_a_similar_one() -> None:
    expected = "there is no action 'servce.disable': did you mean 'service.disable'?"
    assert unknown_action_problem("servce.disable") == expected
    assert unknown_action_problem("rescan") == ""


@pytest.mark.parametrize("name", sorted(GOOD))
def test_the_exported_schema_accepts_and_rejects_the_same(name: str) -> None:
    schema = json.loads(documents()["json/actions.schema.json"])["$defs"][name]
    jsonschema.validate(GOOD[name], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**GOOD[name], "other": 1}, schema)
