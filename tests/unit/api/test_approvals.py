"""The inbox over the API: every kind of question, its history, and scopes for a while."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import ALL, Scope
from controller.ports.store import ApiToken
from controller.service.containment.operator_actions import OperatorLimits
from tests.support.api import Api
from tests.support.api import api as open_api

BASE = "/api/v1"
FLEET = tuple(f"edge-{number}" for number in range(1, 6))
WHY = {"reason": "because"}
LIMITS = OperatorLimits(2, 3600.0, 7200.0)
TOKENS = (
    ApiToken("second", digest_of("cordon_second"), 0.0, ALL),
    ApiToken("viewer", digest_of("cordon_viewer"), 0.0, (Scope.READ,)),
)


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[Api]:
    """Five devices, of which one person contains two; a second person with every scope, and one who only reads."""
    async with open_api(tmp_path / "c.db", by_hand=LIMITS, tokens=TOKENS) as made:
        for device in FLEET:
            await made.report(device)
        yield made


async def as_(api: Api, who: str, method: str, path: str, status: int = 200, body: Any = None) -> Any:
    """JSON of an answer to `who`, which has to have this status."""
    headers = {"Authorization": f"Bearer cordon_{who}"}
    response = await api.client.request(method, BASE + path, json=body, headers=headers)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


async def asked(api: Api, **more: Any) -> dict[str, Any]:
    """A request of `tests` to isolate three devices."""
    body = {"devices": list(FLEET[:3]), "level": "isolated", **WHY, **more}
    found: dict[str, Any] = (await api.json("PUT", f"{BASE}/quarantine", 202, body))["request"]
    return found


async def test_history_stays_and_is_filtered_and_paged(inbox: Api) -> None:
    made = [await asked(inbox, **{"for": f"{hours}h"}) for hours in range(1, 6)]
    first, second, third = (one["request_id"] for one in made[:3])
    await as_(inbox, "second", "POST", f"/approvals/{first}/reject", 200, {"reason": "too many"})
    await inbox.json("POST", f"{BASE}/approvals/{second}/withdraw", 200, {"reason": "solved"})
    await as_(inbox, "second", "POST", f"/approvals/{third}/approve")
    page = await inbox.json("GET", f"{BASE}/approvals?limit=2")
    rest = await inbox.json("GET", f"{BASE}/approvals?limit=3&after={page['next']}")
    ids = [one["request_id"] for one in (*page["items"], *rest["items"])]
    assert ids == [one["request_id"] for one in reversed(made)]
    outcomes = {one["request_id"]: (one["state"], one["decided_by"], one["outcome"]) for one in rest["items"]}
    assert outcomes == {
        first: ("rejected", "operator:second", "too many"),
        second: ("withdrawn", "operator:tests", "solved"),
        third: ("approved", "operator:second", ""),
    }
    assert [one["request_id"] for one in (await inbox.json("GET", f"{BASE}/approvals?state=rejected"))["items"]] == [
        first
    ]
    assert (await as_(inbox, "second", "GET", "/approvals?mine=true"))["items"] == []
    assert len((await inbox.json("GET", f"{BASE}/approvals?mine=true&asks=contain"))["items"]) == 5
    assert (await inbox.json("GET", f"{BASE}/approvals?asks=rollout"))["items"] == []
    await inbox.json("GET", f"{BASE}/approvals?after=nobody", 404)
    told = {line.entry.kind for line in await inbox.harness.store.audit() if line.entry.kind.startswith("approval.")}
    ends = {AuditKind.APPROVAL_REJECTED, AuditKind.APPROVAL_WITHDRAWN, AuditKind.APPROVAL_GRANTED}
    assert told == {AuditKind.APPROVAL_REQUESTED, *ends}


async def test_only_what_was_looked_at_is_approved(inbox: Api) -> None:
    request = await asked(inbox)
    path = f"/approvals/{request['request_id']}/approve"
    refused = await as_(inbox, "second", "POST", path, 409, {"digest": "0" * 64})
    assert "look at it again" in refused["error"]["message"]
    await as_(inbox, "second", "POST", path, 200, {"digest": request["digest"]})


async def test_the_scope_follows_from_what_is_asked(inbox: Api) -> None:
    request = await asked(inbox)
    for action, body in (("approve", {}), ("reject", WHY)):
        answer = await as_(inbox, "viewer", "POST", f"/approvals/{request['request_id']}/{action}", 403, body)
        assert answer["error"]["code"] == "scope_missing"
    assert request["needs"] == ["contain"]
    answer = await as_(inbox, "second", "POST", f"/approvals/{request['request_id']}/withdraw", 409, WHY)
    assert "only who made" in answer["error"]["message"]


async def test_a_rollout_waits_in_the_inbox_until_it_is_decided(inbox: Api) -> None:
    body = {"target": "app/2.0", "rings": [{"name": "all", "select": "rest"}], **WHY}
    for how in ("approve", "reject"):
        rollout = (await inbox.json("POST", f"{BASE}/rollouts", 201, body))["rollout_id"]
        await inbox.services.approvals.run_once()
        found = await inbox.json("GET", f"{BASE}/approvals/{rollout}")
        assert (found["asks"], found["state"], found["by"], found["needs"]) == (
            "rollout", "open", "operator:tests", ["rollout"]
        )  # fmt: skip
        await inbox.json("POST", f"{BASE}/approvals/{rollout}/approve", 409, {})
        ended = await as_(inbox, "second", "POST", f"/approvals/{rollout}/{how}", 200, WHY if how == "reject" else {})
        state = (await inbox.json("GET", f"{BASE}/rollouts/{rollout}"))["state"]
        if how == "approve":
            assert (ended["request"]["state"], state) == ("approved", "running")
            await inbox.json("POST", f"{BASE}/rollouts/{rollout}/abort", 200, {})
            await inbox.services.rollouts.operations._rollouts.once()
        else:
            assert (ended["state"], state in ("ending", "aborted")) == ("rejected", True)


async def test_a_rollout_that_was_aborted_ends_its_request(inbox: Api) -> None:
    body = {"target": "app/2.0", "rings": [{"name": "all", "select": "rest"}], **WHY}
    rollout = (await inbox.json("POST", f"{BASE}/rollouts", 201, body))["rollout_id"]
    await inbox.services.approvals.run_once()
    await inbox.json("POST", f"{BASE}/rollouts/{rollout}/abort", 200, {"reason": "wrong"})
    await inbox.services.approvals.run_once()
    found = await inbox.json("GET", f"{BASE}/approvals/{rollout}")
    assert (found["state"], "aborted by operator:tests" in found["outcome"]) == ("expired", True)


async def test_what_may_be_asked_for(inbox: Api) -> None:
    for scopes, duration, words in (
        (["contain", "admin"], "2h", "never given for a while"),
        (["read"], "2h", "already"),
        (["contain"], "9h", "8h"),
        (["contain"], "1s", "60s"),
    ):
        answer = await as_(inbox, "viewer", "POST", "/approvals", 409, {"scopes": scopes, "for": duration, **WHY})
        assert words in answer["error"]["message"]
    await as_(inbox, "viewer", "POST", "/approvals", 422, {"scopes": ["contain"], "for": "2h", "reason": " "})
