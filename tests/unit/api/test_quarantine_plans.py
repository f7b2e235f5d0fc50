"""The plan of a containment before it, its receipt after it, and options that have to be possible."""

from typing import Any

import pytest

from controller.ports.broker import SavedSubscription
from controller.ports.errors import BrokerUnreachableError
from tests.support.api import Api
from tests.support.fleet_devices import devices_of

BASE = "/api/v1/quarantine/edge-1"


def calls(plan: dict[str, Any]) -> list[str]:
    return [
        f"{call['method']} {call['path'].removeprefix('/api/v5')}"
        for stage in plan["stages"]
        for point in (*stage["acts"], *stage["looks"])
        for call in point["calls"]
    ]


async def test_a_plan_needs_no_known_device_and_asks_the_broker_nothing(api: Api) -> None:
    plan = await api.json("GET", f"{BASE}/plan?goal=isolate&for=10m&clear_retained=true")
    assert plan["goal"] == "isolate"
    ban = plan["stages"][0]["acts"][0]["calls"][0]
    assert (ban["method"], ban["path"], ban["body"]["by"]) == ("POST", "/api/v5/banned", "cordon/<case>")
    assert ban["body"]["until"] == "2027-01-15T08:10:00Z"
    assert "DELETE /mqtt/retainer/message/<topic>" in calls(plan)
    assert api.harness.broker.calls == []


async def test_the_plan_of_a_release_is_of_the_case_in_force(api: Api) -> None:
    await api.report("edge-1")
    await api.json("PUT", BASE, body={"level": "isolated", "reason": "now"})
    await api.harness.drain()
    assert (await api.json("GET", f"{BASE}/plan?goal=release"))["goal"] == "end isolation"
    await api.json("POST", f"{BASE}/release", body={"reason": "fine"})
    case = devices_of(api.harness.fleet)["edge-1"].case
    assert case is not None
    cut = (SavedSubscription("fleet/news", 1, session="s"),)
    await api.harness.store.keep_subscriptions("edge-1", case.case_id, cut, 1.0)
    plan = await api.json("GET", f"{BASE}/plan?goal=release")
    assert plan["goal"] == "release"
    assert {"topic": "fleet/news", "qos": 1, "nl": 0, "rap": 0, "rh": 0} in plan["stages"][-1]["acts"][0]["calls"][-1][
        "body"
    ]


async def test_the_receipt_of_a_containment_and_of_an_earlier_case(api: Api) -> None:
    await api.report("edge-1")
    assert (await api.json("GET", f"{BASE}/receipt", 404))["error"]["code"] == "no_receipt"
    await api.json("PUT", BASE, body={"level": "restricted", "reason": "odd"})
    open_one = await api.json("GET", f"{BASE}/receipt")
    assert (open_one["closed"], open_one["deeds"][0]["lines"]) == (False, [])
    await api.harness.drain()
    receipt = await api.json("GET", f"{BASE}/receipt")
    assert receipt["closed"]
    (deed,) = receipt["deeds"]
    assert (deed["level"], deed["by"], deed["seconds"]) == ("restricted", "operator:tests", 0.0)
    assert deed["lines"][0]["call"] == "RESTRICT"
    await api.json("POST", f"{BASE}/release", body={"reason": "fine"})
    await api.harness.drain()
    await api.json("PUT", BASE, body={"level": "isolated", "reason": "again"})
    await api.harness.drain()
    first = await api.json("GET", f"{BASE}/receipt?case_id={receipt['case_id']}")
    assert [deed["level"] for deed in first["deeds"]] == ["restricted", "none"]
    assert (await api.json("GET", f"{BASE}/receipt"))["case_id"] != receipt["case_id"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"level": "isolated", "kick": True}, 422, "option_not_applicable"),
        ({"level": "restricted", "clear_retained": True}, 422, "option_not_applicable"),
        ({"level": "isolated", "clear_retained": True}, 409, "broker_cannot"),
    ],
)
async def test_an_option_that_would_not_be_done_is_refused(
    api: Api, body: dict[str, Any], status: int, code: str
) -> None:
    api.harness.broker.can_list_retained = False
    await api.report("edge-1")
    assert (await api.json("PUT", BASE, status, {"reason": "no", **body}))["error"]["code"] == code
    assert devices_of(api.harness.fleet)["edge-1"].case is None


async def test_options_reach_the_broker_also_after_a_failed_attempt(api: Api) -> None:
    await api.report("edge-1")
    api.harness.broker.fails.append(BrokerUnreachableError("away"))
    await api.json("PUT", BASE, body={"level": "restricted", "reason": "odd", "kick": True})
    await api.harness.drain()
    stored = await api.harness.store.effects()
    assert [getattr(effect, "kick", None) for effect in stored] == [True]
    await api.json("PUT", BASE, body={"level": "isolated", "reason": "odd", "clear_retained": True})
    await api.harness.drain()
    assert ("clear_retained", True) in api.harness.broker.options


@pytest.mark.parametrize("query", ["goal=free", "goal=restrict&for=soon", ""])
async def test_a_plan_of_nonsense_is_refused(api: Api, query: str) -> None:
    await api.json("GET", f"{BASE}/plan?{query}", 422)
