"""Containing and releasing by hand."""

from typing import Any

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import restriction
from controller.ports.store import StoreHealth
from tests.support.api import Api
from tests.support.fleet_devices import devices_of

BASE = "/api/v1/quarantine"


async def _contain(api: Api, body: dict[str, Any], status: int = 200) -> Any:
    return await api.json("PUT", f"{BASE}/edge-1", status, body)


async def test_restrict_is_kept_and_then_proven_at_the_broker(api: Api) -> None:
    await api.report("edge-1")
    decision = await _contain(api, {"level": "restricted", "reason": "looks odd", "for": "2h"})
    assert (decision["decision"], decision["level"]) == (AuditKind.CONTAINMENT_DECIDED, "restricted")
    assert decision["case"]["proven"] is False
    assert decision["case"]["by"] == "operator:tests"
    assert decision["case"]["hold_until"] == "2027-01-15T10:00:00.000Z"
    await api.harness.drain()
    assert api.harness.broker.rules_held["edge-1"] == restriction("edge-1")
    (line,) = (await api.json("GET", "/api/v1/audit?kind=containment.decided"))["items"]
    assert line["detail"]["until"] == "2027-01-15T10:00:00.000Z"
    page = await api.json("GET", BASE)
    assert [(one["device_id"], one["case"]["proven"]) for one in page["items"]] == [("edge-1", True)]
    assert (await api.json("GET", f"{BASE}?level=isolated"))["total"] == 0


async def test_isolation_steps_down_and_is_then_released(api: Api) -> None:
    await api.report("edge-1")
    decision = await _contain(api, {"level": "isolated", "reason": "now"})
    assert decision["case"]["until_released"] is True
    assert decision["case"]["isolate_until"] is None
    await api.harness.drain()
    assert "edge-1" in api.harness.broker.bans_held
    weaker = await _contain(api, {"level": "restricted", "reason": "weaker"})
    assert (weaker["decision"], weaker["level"]) == (AuditKind.CONTAINMENT_KEPT, "isolated")
    for decided, level in (
        (AuditKind.CONTAINMENT_STEPPED_DOWN, "restricted"),
        (AuditKind.CONTAINMENT_RELEASE_DECIDED, "none"),
        (AuditKind.CONTAINMENT_NOT_IN_FORCE, "none"),
    ):
        decision = await api.json("POST", f"{BASE}/edge-1/release", body={"reason": "fine"})
        assert (decision["decision"], decision["level"]) == (decided, level)
        await api.harness.drain()
    assert api.harness.broker.bans_held == {}
    assert api.harness.broker.rules_held == {}


@pytest.mark.parametrize(
    "body",
    [
        {"level": "restricted"},
        {"level": "restricted", "reason": ""},
        {"level": "restricted", "reason": "  "},
        {"level": "restricted", "reason": "bell\x07"},
        {"level": "restricted", "reason": "x" * 501},
        {"level": "none", "reason": "no"},
        {"level": "restricted", "reason": "no", "for": "soon"},
        {"level": "restricted", "reason": "no", "for": "99999999d"},
        {"level": "restricted", "reason": "no", "untill": "2h"},
    ],
)
async def test_what_is_no_decision_changes_nothing(api: Api, body: dict[str, Any]) -> None:
    await api.report("edge-1")
    before = await api.harness.fleet.find("edge-1")
    answer = await _contain(api, body, 422)
    assert answer["error"]["code"] == "invalid"
    assert await api.harness.fleet.find("edge-1") == before


async def test_a_device_that_never_reported_is_not_made_up(api: Api) -> None:
    await _contain(api, {"level": "restricted", "reason": "who"}, 404)
    await api.json("POST", f"{BASE}/edge-1/release", 404, {"reason": "who"})
    assert devices_of(api.harness.fleet) == {}


async def test_nothing_is_decided_while_the_store_cannot_write(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.report("edge-1")
    sick = StoreHealth("no room left", 1.0)
    monkeypatch.setattr(type(api.harness.store), "health", property(lambda _self: sick))
    for method, path, body in (
        ("PUT", f"{BASE}/edge-1", {"level": "isolated", "reason": "now"}),
        ("POST", f"{BASE}/edge-1/release", {"reason": "now"}),
        ("POST", "/api/v1/commands", {"device_id": "edge-1", "action": "rescan"}),
        ("PUT", "/api/v1/devices/edge-1/labels", {"tags": ["x"]}),
        ("POST", "/api/v1/tokens", {"name": "x"}),
    ):
        response = await api.client.request(method, path, json=body)
        assert response.status_code == 503, path
        assert response.headers["retry-after"] == "5"
        assert response.json()["error"] == {
            "code": "store_not_writable",
            "message": "nothing can be decided now: no room left",
        }
    device = await api.harness.fleet.find("edge-1")
    assert device is not None
    assert device.case is None


async def test_several_devices_are_released_together(api: Api) -> None:
    names = ("edge-1", "edge-2", "edge-3", "edge-4", "edge-5")
    for name in names:
        await api.report(name)
    await api.json("PUT", "/api/v1/devices/edge-2/labels", body={"tags": ["lab"]})
    await api.json("PUT", "/api/v1/devices/edge-3/labels", body={"device_class": "gate"})
    await api.json("PUT", "/api/v1/devices/edge-5/labels", body={"tags": ["lab"]})
    await api.json("PUT", BASE, body={"devices": ["edge-1", "edge-2", "edge-4"], "level": "restricted", "reason": "x"})
    await api.json("PUT", BASE, body={"devices": ["edge-3"], "level": "isolated", "reason": "x"})
    await api.harness.drain()
    wanted = {"devices": ["edge-1"], "tag": "lab", "device_class": "gate", "reason": "fine"}
    before = (await api.harness.store.audit_heads()).chains[1]
    items = (await api.json("POST", f"{BASE}/release", body=wanted))["items"]
    # Of the tag and the class those that are contained; an isolation steps down.
    assert [(one["device_id"], one["decision"], one["level"]) for one in items] == [
        ("edge-1", AuditKind.CONTAINMENT_RELEASE_DECIDED, "none"),
        ("edge-2", AuditKind.CONTAINMENT_RELEASE_DECIDED, "none"),
        ("edge-3", AuditKind.CONTAINMENT_STEPPED_DOWN, "restricted"),
    ]
    assert (await api.harness.store.audit_heads()).chains[1].seq == before.seq + 3
    await api.harness.drain()
    assert api.harness.broker.rules_held.keys() == {"edge-3", "edge-4"}
    (named,) = (await api.json("POST", f"{BASE}/release", body={"devices": ["edge-1"], "reason": "x"}))["items"]
    assert named["decision"] == AuditKind.CONTAINMENT_NOT_IN_FORCE
    for body, code in (
        ({"devices": ["edge-4", "nobody"]}, "device_unknown"),
        ({"tag": "lab"}, "no_devices_selected"),
        ({}, "no_devices_selected"),
    ):
        refused = await api.json("POST", f"{BASE}/release", 404, {**body, "reason": "x"})
        assert refused["error"]["code"] == code
    assert api.harness.level("edge-4") is ContainmentLevel.RESTRICTED
