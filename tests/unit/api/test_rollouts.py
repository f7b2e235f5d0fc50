"""Rollouts over the API: what can be asked for, what is refused and why."""

from typing import Any

import pytest

from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import Scope
from controller.ports.store import ApiToken
from tests.support.api import Api
from tests.support.persons import put_holder

BASE = "/api/v1/rollouts"
ALL = {"target": "app/2.0", "rings": [{"name": "all", "select": "rest"}]}


async def started(api: Api, **changes: Any) -> Any:
    for number, device in enumerate(("edge-1", "edge-2")):
        await api.report(device, seq=number + 1)
    return await api.json("POST", BASE, 201, {**ALL, **changes})


async def test_one_is_started_and_looked_at(api: Api) -> None:
    made = await started(
        api, soak="2h", error_threshold=0.1, min_sample=3, timeout="5m", window="02:00-05:00", per_minute=100.0
    )
    assert made["rollout_id"] == "r-0001"
    assert (made["state"], made["ring"], made["by"]) == ("awaiting_approval", "all", "operator:tests")
    assert made["terms"] == {
        "soak": 7200.0, "error_threshold": 0.1, "min_sample": 3, "timeout": 300.0, "window": "02:00-05:00",
        "per_minute": 100.0, "rollback_on_error": False, "approval": True, "allow_downgrade": False,
    }  # fmt: skip
    assert made["rings"][0]["devices"] == 2
    assert await api.json("GET", f"{BASE}/r-0001") == made
    assert (await api.json("GET", BASE))["items"] == [made]
    assert (await api.json("GET", f"{BASE}?open_only=true"))["items"] == [made]
    page = await api.json("GET", f"{BASE}/r-0001/devices?state=pending")
    assert sorted(one["device_id"] for one in page["items"]) == ["edge-1", "edge-2"]
    assert page["total"] == 2
    assert (await api.json("GET", f"{BASE}/r-0001/devices?state=unknown"))["total"] == 0


@pytest.mark.parametrize(
    ("rings", "waits_before"),
    [
        ([("a", "cel:device.id != 'edge-2'"), ("b", "rest")], 0),
        ([("a", "50%"), ("b", "rest")], 0),
        ([("test", "cel:device.id != 'edge-2'"), ("b", "rest")], 0),  # a configured name with another selection
        ([("test", None), ("b", "rest")], 1),
        ([("test", None)], 1),
    ],
)
async def test_one_person_reaches_no_more_than_the_configured_test_rings(
    api: Api, rings: list[tuple[str, str | None]], waits_before: int
) -> None:
    for number, device in enumerate(("edge-1", "edge-2")):
        await api.report(device, seq=number + 1)
    await api.json("PUT", "/api/v1/devices/edge-1/labels", 200, {"tags": ["ring:test"]})
    asked = [{"name": name} | ({} if select is None else {"select": select}) for name, select in rings]
    made = await api.json("POST", BASE, 201, {**ALL, "rings": asked})
    assert made["state"] == ("running" if waits_before else "awaiting_approval")


async def test_it_is_held_and_ended(api: Api) -> None:
    await started(api)
    assert (await api.json("POST", f"{BASE}/r-0001/pause", 200, {}))["paused"] is True
    assert (await api.json("POST", f"{BASE}/r-0001/resume", 200, {}))["paused"] is False
    await api.json("POST", f"{BASE}/r-0001/resume", 409, {})
    answer = await api.json("POST", f"{BASE}/r-0001/approve", 409, {})
    assert "second person" in answer["error"]["message"]
    ended = await api.json("POST", f"{BASE}/r-0001/abort", 200, {"reason": "wrong version"})
    assert (ended["state"], ended["why"]) == ("aborted", "aborted by operator:tests: wrong version")
    await api.json("POST", f"{BASE}/r-0001/abort", 409, {})
    await api.json("POST", f"{BASE}/r-0001/pause", 409, {})
    assert (await api.json("GET", f"{BASE}?open_only=true"))["items"] == []
    lines = await api.harness.store.audit(kind=AuditKind.ROLLOUT_ABORTED, limit=5)
    assert [one.entry.actor for one in lines] == ["operator:tests"]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"target": "app/3.0"}, 404, "not published"),
        ({"rings": [{"name": "moon"}]}, 409, "not configured"),
        ({"rings": [{"name": "all", "select": "moon:1"}]}, 409, "tag:NAME"),
        ({"rings": [{"name": "none", "select": "tag:x"}]}, 409, "no device"),
        ({"rings": []}, 409, "empty"),
        ({"only": "tag:nobody"}, 409, "no device"),
        ({"window": "5-6"}, 422, "window"),
        ({"timeout": "30d"}, 422, "timeout"),
        ({"error_threshold": 2.0}, 422, "error_threshold"),
        ({"more": 1}, 422, "more"),
    ],
)
async def test_what_makes_no_rollout_is_refused(api: Api, change: dict[str, Any], status: int, words: str) -> None:
    await api.report("edge-1")
    answer = await api.json("POST", BASE, status, {**ALL, **change})
    assert words in answer["error"]["message"]
    assert (await api.json("GET", BASE))["items"] == []


async def test_unknown_ones(api: Api) -> None:
    for path in ("", "/devices"):
        await api.json("GET", f"{BASE}/r-9999{path}", 404)
    for path in ("pause", "resume", "approve", "abort"):
        await api.json("POST", f"{BASE}/r-9999/{path}", 404, {})


async def test_it_needs_the_scope(api: Api) -> None:
    await started(api)
    await put_holder(
        api.harness.store, ApiToken("reader", digest_of("cordon_reader"), api.harness.clock.at, (Scope.READ,))
    )
    headers = {"Authorization": "Bearer cordon_reader"}
    assert (await api.client.get(f"{BASE}/r-0001", headers=headers)).status_code == 200
    assert (await api.client.post(f"{BASE}/r-0001/abort", json={}, headers=headers)).status_code == 403


async def test_metrics_count_its_devices(api: Api) -> None:
    await started(api)
    text = (await api.client.get("/metrics")).text
    assert 'cordon_rollout_devices{ring="all",rollout="r-0001",state="waiting"} 2.0' in text


async def test_going_back_can_be_asked_again_and_at_once(api: Api) -> None:
    await started(api, window="02:00-05:00")
    await api.json("POST", f"{BASE}/r-0001/abort", 409, {"now": True})
    ended = await api.json("POST", f"{BASE}/r-0001/abort", 200, {"rollback": True, "now": True})
    assert ended["state"] == "aborted"
    answer = await api.json("POST", f"{BASE}/r-0001/abort", 409, {"rollback": True})
    assert "gone back" in answer["error"]["message"]
    assert (ended["rings"][0]["revert_pending"], ended["rings"][0]["revert_away"]) == (0, 0)
    assert ended["soak_by_wall_clock"] is False
