"""The guards over the API: what waits, second persons, protected devices, waivers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.guards.approvals import ApprovalKind, ApprovalState
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards, ProtectionRules
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.domain.scopes import ALL
from controller.ports.store import ApiToken
from controller.service.containment.operator_actions import OperatorLimits, OperatorRequest, ProtectedDeviceError
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.controller_harness import open_harness
from tests.support.fleet_devices import devices_of
from tests.support.persons import account_of, person, put_holder

BASE = "/api/v1"
FLEET = tuple(f"edge-{number}" for number in range(1, 6))
GUARDS = FleetGuards(BlastRadius(BlastRadiusLimits(2, 100.0, 600.0)), protection=ProtectionRules(frozenset({"edge-5"})))
SECOND = {"Authorization": "Bearer cordon_second"}
WHY = {"reason": "because"}


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Api]:
    """Five devices, of which policies contain two; an operator contains two alone; another operator is there."""
    async with open_api(tmp_path / "cordon.db", guards=GUARDS, by_hand=OperatorLimits(2, 3600.0, 7200.0)) as one:
        await put_holder(one.harness.store, ApiToken("second", digest_of("cordon_second"), one.harness.clock.at, ALL))
        for device in FLEET:
            await one.report(device)
        yield one


async def _second(api: Api, method: str, path: str, status: int = 200, body: Any = None) -> Any:
    response = await api.client.request(method, BASE + path, json=body, headers=SECOND)
    assert response.status_code == status, response.text
    return response.json()


async def _all_fail(api: Api, seq: int = 2) -> None:
    for device in FLEET[:4]:
        await api.report(device, ports=(23,), seq=seq)


def _levels(api: Api) -> list[str]:
    return [api.harness.level(device).value for device in FLEET]


async def test_what_waits_is_told_and_let_through(guarded: Api, tmp_path: Path) -> None:
    await _all_fail(guarded)
    found = await guarded.json("GET", f"{BASE}/guard")
    assert (found["fleet"], found["contained"], found["limit"], found["reached"]) == (5, 2, 2, True)
    assert (found["window"], found["left_by_hand"], found["waiting"]) == ("10m", 2, 2)
    assert [(one["device_id"], one["why"], one["causes"]) for one in found["items"]] == [
        ("edge-3", "blast-radius", ["p/telnet"]),
        ("edge-4", "blast-radius", ["p/telnet"]),
    ]
    alerts = (await guarded.json("GET", f"{BASE}/audit?alerts_only=true"))["items"]
    assert [one["kind"] for one in alerts if "blast" in one["kind"]] == [AuditKind.GUARD_BLAST_RADIUS_REACHED]
    shown = await guarded.json("GET", f"{BASE}/devices/edge-3")
    assert shown["pending"]["why"] == "blast-radius"
    done = await guarded.json("POST", f"{BASE}/guard/approve", body={"devices": ["edge-3"], **WHY})
    assert [(one["device_id"], one["level"]) for one in done["items"]] == [("edge-3", "restricted")]
    done = await guarded.json("POST", f"{BASE}/guard/dismiss", body={"all": True, **WHY})
    assert [one["decision"] for one in done["items"]] == [AuditKind.CONTAINMENT_DISMISSED]
    assert _levels(guarded) == ["restricted"] * 3 + ["none"] * 2
    assert (await guarded.json("GET", f"{BASE}/guard"))["reached"] is False
    await guarded.harness.drain()
    assert set(guarded.harness.broker.rules_held) == {"edge-1", "edge-2", "edge-3"}


async def test_the_budget_and_what_waits_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    async with open_api(path, guards=GUARDS) as one:
        for device in FLEET:
            await one.report(device, ports=(23,) if device != "edge-5" else ())
    async with open_harness(path, guards=GUARDS) as harness:
        assert set(harness.fleet.guards.radius.charged) == {"edge-1", "edge-2"}
        assert harness.fleet.guards.radius.waiting == 2
        assert harness.fleet.guards.fleet == 5
        assert [device for device in FLEET if devices_of(harness.fleet)[device].pending] == ["edge-3", "edge-4"]


async def test_selections_that_are_none(guarded: Api) -> None:
    for path in ("approve", "dismiss"):
        await guarded.json("POST", f"{BASE}/guard/{path}", 409, WHY)
        await guarded.json("POST", f"{BASE}/guard/{path}", 409, {"all": True, "devices": ["edge-1"], **WHY})
        answer = await guarded.json("POST", f"{BASE}/guard/{path}", 409, {"devices": ["edge-1"], **WHY})
        assert answer["error"]["code"] == "not_waiting"


async def test_more_than_one_person_may_contain_waits_for_another(guarded: Api) -> None:
    body = {"devices": list(FLEET[:3]), "level": "restricted", "for": "2h", **WHY}
    answer = await guarded.json("PUT", f"{BASE}/quarantine", 202, body)
    request = answer["request"]
    assert (answer["items"], request["state"], request["asks"], request["by"]) == (
        [], "open", "contain", "operator:tests"
    )  # fmt: skip
    assert _levels(guarded) == ["none"] * 5
    path = f"/approvals/{request['request_id']}"
    own = await guarded.json("POST", f"{BASE}{path}/approve", 409)
    assert "your own" in own["error"]["message"]
    assert (await _second(guarded, "GET", "/approvals?state=open"))["items"] == [request]
    approved = await _second(guarded, "POST", f"{path}/approve")
    assert approved["request"]["state"] == "approved"
    assert approved["request"]["decided_by"] == "operator:second"
    assert _levels(guarded) == ["restricted"] * 3 + ["none"] * 2
    case = devices_of(guarded.harness.fleet)["edge-1"].case
    assert case is not None
    assert case.by == "operator:tests with operator:second"
    await _second(guarded, "POST", f"{path}/approve", 409)
    assert (await guarded.json("GET", f"{BASE}/guard"))["left_by_hand"] == 2, "what two decided is nobody's alone"


async def test_one_by_one_counts_like_all_at_once_and_survives_a_restart(guarded: Api, tmp_path: Path) -> None:
    for device in FLEET[:2]:
        await guarded.json("PUT", f"{BASE}/quarantine/{device}", 200, {"level": "restricted", **WHY})
    again = {"level": "isolated", **WHY}
    await guarded.json("PUT", f"{BASE}/quarantine/edge-1", 200, again)
    third = await guarded.json("PUT", f"{BASE}/quarantine/edge-3", 202, {"level": "restricted", **WHY})
    assert third["request"]["devices"] == ["edge-3"]
    books = await guarded.harness.store.guard_books()
    tests = account_of("tests").key
    assert {(ledger, device) for ledger, device, _ in books.charges} == {(tests, "edge-1"), (tests, "edge-2")}
    assert [one.request_id for one in books.requests] == [third["request"]["request_id"]]
    guarded.harness.clock.at += 3601
    await guarded.json("PUT", f"{BASE}/quarantine/edge-3", 200, {"level": "restricted", **WHY})


async def test_a_request_ends_by_itself_in_nothing(guarded: Api) -> None:
    body = {"devices": list(FLEET[:3]), "level": "isolated", **WHY}
    request = (await guarded.json("PUT", f"{BASE}/quarantine", 202, body))["request"]
    guarded.harness.clock.at += 7200
    answer = await _second(guarded, "POST", f"/approvals/{request['request_id']}/approve", 409)
    assert "expired" in answer["error"]["message"]
    await guarded.services.approvals.book.expire()
    assert (await guarded.json("GET", f"{BASE}/approvals/{request['request_id']}"))["state"] == "expired"
    assert AuditKind.APPROVAL_EXPIRED in [one.entry.kind for one in await guarded.harness.store.audit()]
    assert _levels(guarded) == ["none"] * 5


async def test_a_request_is_rejected_by_anybody_once(guarded: Api) -> None:
    body = {"devices": list(FLEET[:3]), "level": "isolated", **WHY}
    request = (await guarded.json("PUT", f"{BASE}/quarantine", 202, body))["request"]
    path = f"{BASE}/approvals/{request['request_id']}/reject"
    assert (await guarded.json("POST", path, 200, WHY))["state"] == "rejected"
    await guarded.json("POST", path, 409, WHY)
    for action in ("approve", "reject"):
        await guarded.json("POST", f"{BASE}/approvals/nobody/{action}", 404, WHY if action == "reject" else None)
    await guarded.json("GET", f"{BASE}/approvals/nobody", 404)


async def test_letting_many_through_needs_a_second_person_too(guarded: Api) -> None:
    await _all_fail(guarded)
    for device in FLEET[:2]:
        await guarded.json("PUT", f"{BASE}/quarantine/{device}", 200, {"level": "restricted", **WHY})
    answer = await guarded.json("POST", f"{BASE}/guard/approve", 202, {"all": True, **WHY})
    assert answer["request"]["asks"] == "let-through"
    assert _levels(guarded)[2:4] == ["none", "none"]
    await _second(guarded, "POST", f"/approvals/{answer['request']['request_id']}/approve")
    assert _levels(guarded)[2:4] == ["restricted", "restricted"]


async def test_protected_devices_are_asked_about(guarded: Api) -> None:
    body = {"level": "restricted", **WHY}
    answer = await guarded.json("PUT", f"{BASE}/quarantine/edge-5", 409, body)
    assert answer["error"]["code"] == "device_protected"
    assert "guards.protected_devices" in answer["error"]["message"]
    await guarded.report("edge-5", ports=(23,), seq=2)
    (waiting,) = (await guarded.json("GET", f"{BASE}/guard"))["items"]
    assert (waiting["why"], waiting["device_id"]) == ("protected", "edge-5")
    assert (await guarded.json("GET", f"{BASE}/guard"))["reached"] is False
    through = {"devices": ["edge-5"], **WHY}
    await guarded.json("POST", f"{BASE}/guard/approve", 409, through)
    await guarded.json("POST", f"{BASE}/guard/approve", 200, {**through, "even_protected": True})
    assert guarded.harness.level("edge-5") is ContainmentLevel.RESTRICTED


async def test_devices_are_chosen_by_tag_and_class(guarded: Api) -> None:
    await guarded.json("PUT", f"{BASE}/devices/edge-1/labels", 200, {"tags": ["hall-3"]})
    await guarded.json("PUT", f"{BASE}/devices/edge-2/labels", 200, {"device_class": "lab"})
    body = {"level": "isolated", "tag": "hall-3", "device_class": "lab", **WHY}
    done = await guarded.json("PUT", f"{BASE}/quarantine", 200, body)
    assert [(one["device_id"], one["level"]) for one in done["items"]] == [
        ("edge-1", "isolated"), ("edge-2", "isolated")
    ]  # fmt: skip
    await guarded.json("PUT", f"{BASE}/quarantine", 404, {"level": "isolated", "tag": "nobody", **WHY})
    await guarded.json("PUT", f"{BASE}/quarantine", 404, {"level": "isolated", "devices": ["stranger"], **WHY})


async def test_protection_by_an_expression_over_facts(tmp_path: Path) -> None:
    async with open_api(tmp_path / "c.db", protected_if="listening_ports.exists(p, p == 104)") as one:
        await one.report("edge-1", ports=(23, 104))
        await one.report("edge-2", ports=(23,))
        assert one.harness.level("edge-1") is ContainmentLevel.NONE
        assert one.harness.level("edge-2") is ContainmentLevel.RESTRICTED
        assert devices_of(one.harness.fleet)["edge-1"].predicates == ("protected",)
    async with open_api(tmp_path / "d.db", protected_if="reboot_required") as one:
        await one.report("edge-1", ports=(23,))
        assert one.harness.level("edge-1") is ContainmentLevel.NONE, "what cannot be answered protects"


WAIVER = {"rule": "p/telnet", "owner": "J. Doe", "for": "1h", **WHY}


async def test_a_waiver_from_its_grant_to_its_end(guarded: Api) -> None:
    made = await guarded.json("POST", f"{BASE}/waivers", 201, {**WAIVER, "device": "edge-1"})
    assert (made["owner"], made["granted_by"]) == ("J. Doe", "operator:tests")
    await guarded.report("edge-1", ports=(23,), seq=2)
    assert guarded.harness.level("edge-1") is ContainmentLevel.NONE
    (finding,) = (await guarded.json("GET", f"{BASE}/devices/edge-1"))["findings"]
    assert (finding["result"], finding["waived"]["owner"], finding["mode"]) == ("fail", "J. Doe", "enforce")
    assert (await guarded.json("GET", f"{BASE}/waivers"))["items"] == [made]
    guarded.harness.clock.at += 3600
    await guarded.harness.timers.tick()
    assert guarded.harness.level("edge-1") is ContainmentLevel.RESTRICTED, "it bites by itself"
    await guarded.services.containment.waivers.expire()
    assert (await guarded.json("GET", f"{BASE}/waivers"))["items"] == []
    assert (await guarded.harness.store.guard_books()).waivers == ()


async def test_a_revoked_waiver_bites_at_once(guarded: Api) -> None:
    await guarded.json("PUT", f"{BASE}/devices/edge-1/labels", 200, {"tags": ["lab"]})
    made = await guarded.json("POST", f"{BASE}/waivers", 201, {**WAIVER, "tag": "lab"})
    await guarded.report("edge-1", ports=(23,), seq=2)
    assert guarded.harness.level("edge-1") is ContainmentLevel.NONE
    await guarded.json("DELETE", f"{BASE}/waivers/{made['waiver_id']}", 204)
    assert guarded.harness.level("edge-1") is ContainmentLevel.RESTRICTED
    await guarded.json("DELETE", f"{BASE}/waivers/{made['waiver_id']}", 404)


async def test_a_waiver_by_expression_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    async with open_api(path) as one:
        await one.report("edge-1", ports=(22,))
        body = {**WAIVER, "expression": "listening_ports.exists(p, p == 8080)"}
        made = await one.json("POST", f"{BASE}/waivers", 201, body)
        await one.report("edge-1", ports=(23, 8080), seq=2)
        await one.report("edge-2", ports=(23,))
        assert (one.harness.level("edge-1"), one.harness.level("edge-2")) == (
            ContainmentLevel.NONE,
            ContainmentLevel.RESTRICTED,
        )
    async with open_api(path) as one:
        await one.report("edge-1", ports=(23, 8080, 9), seq=3)
        assert one.harness.level("edge-1") is ContainmentLevel.NONE
        await one.report("edge-1", ports=(23,), seq=4)
        assert one.harness.level("edge-1") is ContainmentLevel.RESTRICTED
        await one.json("DELETE", f"{BASE}/waivers/{made['waiver_id']}", 204)
        assert one.harness.fleet.policies.predicates == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "p/nobody", "device": "edge-1"},
        {"rule": "q/*", "device": "edge-1"},
        {},
        {"device": "edge-1", "tag": "lab"},
        {"device": "edge-1", "for": "0s"},
        {"expression": "no_such_fact"},
        {"device": "edge-1", "owner": " "},
        {"device": "edge-1", "rule": "telnet"},
    ],
)
async def test_what_is_no_waiver(guarded: Api, changes: dict[str, str]) -> None:
    response = await guarded.client.post(f"{BASE}/waivers", json={**WAIVER, **changes})
    assert response.status_code in (409, 422), response.text
    assert guarded.services.containment.waivers.all() == []


async def test_users_and_certificates_count_with_what_they_cut(guarded: Api) -> None:
    guarding = guarded.services.containment.operators
    second, tests = person("second"), person("tests")

    def revoking(by: Principal, *devices: str) -> OperatorRequest:
        return OperatorRequest(ApprovalKind.REVOKE, devices, by, "lost", serials=("a1",))

    assert await guarding.charge(revoking(tests, "edge-1", "edge-2")) is None
    assert (await guarded.json("GET", f"{BASE}/guard"))["left_by_hand"] == 0
    asked = await guarding.charge(revoking(tests, "edge-3"))
    assert asked is not None
    assert (asked.state, asked.serials) == (ApprovalState.OPEN, ("a1",))
    assert await guarding.charge(OperatorRequest(ApprovalKind.CONTAIN_USER, (), second, "r", username="x")) is None
    with pytest.raises(ProtectedDeviceError):
        await guarding.charge(revoking(second, "edge-5"))
