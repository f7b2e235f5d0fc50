"""Users and certificates by hand."""

from dataclasses import replace
from typing import Any

import pytest

from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.plan import SubjectKind
from controller.domain.guards.guards import ProtectionRules
from controller.domain.policy.model import ContainmentLevel
from controller.domain.scopes import ALL
from controller.ports.store import ApiToken
from tests.support.api import Api
from tests.support.persons import put_holder

BASE = "/api/v1/users"


async def _isolate(api: Api, status: int = 200, /, **more: Any) -> Any:
    body = {"username": "lab", "level": "isolated", "reason": "stolen", **more}
    return await api.json("POST", f"{BASE}/contain", status, body)


async def test_contain_show_and_release(api: Api) -> None:
    api.users.live["lab"] = ["a", "b"]
    seen = await api.json("GET", f"{BASE}/sessions?username=lab")
    assert (seen["total"], [one["client_id"] for one in seen["sessions"]], seen["case"]) == (2, ["a", "b"], None)
    plan = await api.json("GET", f"{BASE}/plan?username=lab&goal=isolate")
    assert plan["stages"][0]["acts"][0]["calls"][0]["body"]["as"] == "username"
    decided = await _isolate(api, 200, **{"for": "2h"})
    assert (decided["level"], decided["proven"], decided["by"]) == ("isolated", False, "operator:tests")
    assert decided["until"] == "2027-01-15T10:00:00.000Z"
    await api.services.containment.users.tick()
    assert (await api.json("GET", BASE))["items"][0]["proven"]
    receipt = await api.json("GET", f"{BASE}/receipt?username=lab")
    assert (receipt["device_id"], receipt["closed"], receipt["deeds"][0]["lines"][0]["call"]) == (
        "username:lab", True, "POST /banned"
    )  # fmt: skip
    assert (await api.json("GET", f"{BASE}/plan?username=lab&goal=release"))["goal"] == "end isolation"
    down = await api.json("POST", f"{BASE}/release", body={"username": "lab", "reason": "found"})
    assert down["level"] == "restricted"
    await api.json("POST", f"{BASE}/release", body={"username": "lab", "reason": "found"})
    await api.services.containment.users.tick()
    assert (await api.json("GET", BASE))["items"] == []
    await api.json("POST", f"{BASE}/release", 404, {"username": "lab", "reason": "found"})


async def test_the_list_says_what_a_proven_decision_leaves_open_until_there_is_a_new_one(api: Api) -> None:
    api.users.live["lab"] = ["a"]
    api.users.left_open = ("topics with $odd stay open",)
    await _isolate(api)
    await api.services.containment.users.tick()
    (case,) = (await api.json("GET", BASE))["items"]
    assert (case["proven"], case["left_open"]) == (True, ["topics with $odd stay open"])
    shown = await api.json("POST", f"{BASE}/release", body={"username": "lab", "reason": "found"})
    assert (shown["proven"], shown["left_open"]) == (False, [])


async def test_a_user_with_many_sessions_needs_max_sessions(api: Api) -> None:
    api.users.live["lab"] = [f"d{n}" for n in range(11)]
    refused = await _isolate(api, 409)
    assert refused["error"]["code"] == "too_many_sessions"
    assert api.services.containment.users.cases == {}
    assert (await _isolate(api, max_sessions=11))["level"] == "isolated"


async def test_cordon_does_not_cut_its_own_link(api: Api) -> None:
    api.users.live["lab"] = ["a", api.services.settings.mqtt.client_id]
    assert (await _isolate(api, 409))["error"]["code"] == "would_cut_cordon"


@pytest.mark.parametrize(
    ("name", "code"),
    [("..", "invalid_username"), ("bell\x07", "invalid"), ("", "invalid"), ("x" * 300, "invalid")],
)
async def test_an_invalid_user_name_is_refused(api: Api, name: str, code: str) -> None:
    assert (await _isolate(api, 422, username=name))["error"]["code"] == code


async def test_a_certificate_is_contained_as_what_the_broker_names_by_it(api: Api) -> None:
    body = {"common_name": "edge-9", "level": "isolated", "reason": "stolen"}
    api.users.named = frozenset()
    refused = await api.json("POST", f"{BASE}/certificates/contain", 409, body)
    assert refused["error"]["code"] == "certificate_names_nobody"
    api.users.named = frozenset({SubjectKind.CLIENT, SubjectKind.USER})
    decided = await api.json("POST", f"{BASE}/certificates/contain", body=body)
    # The device never reported, and is contained all the same.
    assert (decided["device"]["device_id"], decided["device"]["level"]) == ("edge-9", "isolated")
    assert (decided["user"]["username"], decided["user"]["level"]) == ("edge-9", "isolated")
    assert api.harness.level("edge-9") is ContainmentLevel.ISOLATED
    released = await api.json("POST", f"{BASE}/certificates/release", body={"common_name": "edge-9", "reason": "ok"})
    assert (released["device"]["level"], released["user"]["level"]) == ("restricted", "restricted")
    await api.json("POST", f"{BASE}/certificates/release", 404, {"common_name": "nobody", "reason": "ok"})
    refused = await api.json("POST", f"{BASE}/certificates/contain", 422, {**body, "common_name": "a/b"})
    assert refused["error"]["code"] == "invalid_client_id"


async def test_more_sessions_than_the_own_limit_are_contained_through_an_approval(api: Api) -> None:
    operators, users = api.services.containment.operators, api.services.containment.users
    names = [f"d{n}" for n in range(operators.limits.most + 1)]
    api.users.live["lab"] = names
    assert (await _isolate(api, 409))["error"]["code"] == "too_many_sessions"
    asked = (await _isolate(api, 202, max_sessions=1_000_000, **{"for": "2h"}))["request"]
    assert (asked["asks"], asked["username"], asked["state"], asked["devices"]) == (
        "contain-user", "lab", "open", names
    )  # fmt: skip
    assert users.cases == {}, "nothing was done yet"
    path = f"/api/v1/approvals/{asked['request_id']}/approve"
    assert (await api.json("POST", path, 409))["error"]["code"] == "not_decidable", "one person is not two"
    await put_holder(api.harness.store, ApiToken("second", digest_of("cordon_second"), api.harness.clock.at, ALL))
    headers = {"Authorization": "Bearer cordon_second"}
    api.users.live["lab"] = [*names, api.services.settings.mqtt.client_id]
    refused = await api.client.post(path, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "would_cut_cordon")
    api.users.live["lab"] = names
    done = (await api.client.post(path, headers=headers)).json()
    assert (done["request"]["state"], done["items"]) == ("approved", [])
    assert (done["user"]["username"], done["user"]["level"], done["user"]["by"]) == (
        "lab", "isolated", "operator:tests with operator:second"
    )  # fmt: skip
    assert done["user"]["until"] == "2027-01-15T10:00:00.000Z"
    await users.tick()
    assert (await api.json("GET", BASE))["items"][0]["proven"]
    (line,) = await api.harness.store.audit(kind=AuditKind.APPROVAL_REQUESTED)
    assert (line.entry.detail or {})["username"] == "lab"


async def test_a_protected_device_among_the_sessions_needs_even_protected(api: Api) -> None:
    await api.report("edge-1")
    await api.json("PUT", "/api/v1/devices/edge-1/labels", body={"tags": ["infrastructure"]})
    protection = ProtectionRules(tags=frozenset({"infrastructure"}))
    api.harness.fleet.held.guards = replace(api.harness.fleet.guards, protection=protection)
    api.users.live["lab"] = ["edge-1"]
    assert (await _isolate(api, 409))["error"]["code"] == "device_protected"
    certificate = {"common_name": "edge-1", "level": "isolated", "reason": "stolen"}
    refused = await api.json("POST", f"{BASE}/certificates/contain", 409, certificate)
    assert refused["error"]["code"] == "device_protected"
    assert (await _isolate(api, even_protected=True))["level"] == "isolated"
