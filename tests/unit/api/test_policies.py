"""Policies in force, read again, and explained."""

from controller.ports.policies import PolicyError, PolicyProblem
from tests.support.api import Api
from tests.support.playbook import policies, rule


async def test_list(api: Api) -> None:
    found = await api.json("GET", "/api/v1/policies")
    (policy,) = found["items"]
    telnet, docker = policy["rules"]
    assert (found["version"], policy["name"]) == ("v1", "p")
    assert telnet["response"] == {
        "contain": "restricted",
        "isolate_for": None,
        "remediate": {"action": "service.disable", "params": {"name": "telnetd"}},
        "consecutive": 1,
        "grace": "0s",
        "passing": 1,
        "cool_down": "0s",
        "repeat": None,
    }
    assert telnet["mode"] == "enforce"
    assert docker["response"]["isolate_for"] == "10m"


async def test_explain(api: Api) -> None:
    await api.report("edge-1", ports=(22, 23))
    found = await api.json("GET", "/api/v1/devices/edge-1/explain")
    telnet, docker = found["items"]
    assert (telnet["rule"], telnet["result"]) == ("p/telnet", "fail")
    assert telnet["facts"] == [{"name": "listening_ports", "value": "22, 23", "missing": "", "knowledge": []}]
    assert docker["result"] == "pass"
    await api.json("GET", "/api/v1/devices/nobody/explain", 404)


async def test_reload_takes_good_ones_and_keeps_the_old_beside_bad_ones(api: Api) -> None:
    api.reload.append(PolicyError([PolicyProblem("a.yaml", 3, 1, "no such fact")]))
    answer = await api.json("POST", "/api/v1/policies/reload", 422)
    assert answer["error"] == {"code": "policy_mistake", "message": "a.yaml:3:1: no such fact"}
    assert len(api.harness.fleet.policies.rules) == 2
    api.reload.append(policies(rule("only")))
    found = await api.json("POST", "/api/v1/policies/reload")
    assert [one["rule"] for one in found["items"][0]["rules"]] == ["p/only"]
    assert list(api.harness.fleet.policies.rules) == ["p/only"]
