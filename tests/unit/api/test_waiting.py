"""`wait`: the answer comes when the broker was read back, or says why it was not."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Request

from controller.api.waiting import RequestWait
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import BrokerUnreachableError
from controller.service import waiting
from controller.service.waiting import MAX_WAITERS_PER_CALLER, WaitEnd
from schemas.topics import UpChannel
from tests.support.api import Api
from tests.support.reports import SENT_AT, incoming

EDGE = "/api/v1/quarantine/edge-1"
BODY = {"level": "isolated", "reason": "odd"}


@pytest.fixture
async def working(api: Api) -> AsyncIterator[Api]:
    """An API with a device, and an outbox that carries out what is decided."""
    await api.report("edge-1")
    await api.report("edge-2")
    async with asyncio.TaskGroup() as group:
        outbox = group.create_task(api.harness.outbox.run())
        yield api
        outbox.cancel()


async def _waiting(api: Api, count: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(api.services.waiters) < count:
            await asyncio.sleep(0.001)


async def test_containment_and_release_are_answered_when_they_are_proven(working: Api) -> None:
    found = await working.json("PUT", f"{EDGE}?wait=20", body=BODY)
    assert (found["proof"], found["proven"], found["waited"]) == ("proven", True, "settled")
    assert (found["case"]["proven"], "edge-1" in working.harness.broker.bans_held) == (True, True)
    for level in ("restricted", "none"):
        found = await working.json("POST", f"{EDGE}/release?wait=20", body={"reason": "checked"})
        assert (found["level"], found["proof"], found["waited"]) == (level, "proven", "settled")
    assert working.harness.broker.rules_held == {}
    found = await working.json("POST", f"{EDGE}/release?wait=20", body={"reason": "again"})
    assert (found["decision"], found["proof"], found["proven"]) == ("containment.not_in_force", "not_required", False)


async def test_without_wait_the_answer_comes_at_once(api: Api) -> None:
    await api.report("edge-1")
    found = await api.json("PUT", EDGE, body=BODY)
    assert (found["proof"], found["proven"], found["waited"]) == ("pending", False, "no")


async def test_a_wait_that_is_too_short_goes_on_with_the_proof(api: Api) -> None:
    await api.report("edge-1")
    found = await api.json("PUT", f"{EDGE}?wait=0.01", body=BODY)
    assert (found["proof"], found["waited"]) == ("pending", "timed_out")
    async with asyncio.TaskGroup() as group:
        proof = group.create_task(api.json("GET", f"{EDGE}/proof?wait=20"))
        await _waiting(api)
        await api.harness.drain()
    found = proof.result()
    assert (found["level"], found["proof"], found["proven"], found["waited"]) == ("isolated", "proven", True, "settled")
    await api.json("GET", "/api/v1/quarantine/edge-9/proof", 404)


async def test_a_release_is_pending_until_the_broker_was_read_back(api: Api) -> None:
    await api.report("edge-1")
    await api.json("PUT", EDGE, body={"level": "restricted", "reason": "odd"})
    await api.harness.drain()
    found = await api.json("POST", f"{EDGE}/release?wait=0.01", body={"reason": "checked"})
    assert (found["case"], found["proof"], found["waited"]) == (None, "pending", "timed_out")
    await api.harness.drain()
    assert (await api.json("GET", f"{EDGE}/proof"))["proof"] == "proven"


async def test_decisions_about_users_are_answered_when_they_are_proven(working: Api) -> None:
    users = working.services.containment.users
    assert users is not None
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(users.run())
        body = {"username": "lab", "level": "restricted", "reason": "odd"}
        found = await working.json("POST", "/api/v1/users/contain?wait=20", body=body)
        assert (found["level"], found["proof"], found["proven"], found["waited"]) == (
            "restricted", "proven", True, "settled"
        )  # fmt: skip
        found = await working.json("POST", "/api/v1/users/release?wait=20", body={"username": "lab", "reason": "found"})
        assert (found["level"], found["proof"], found["proven"]) == ("none", "proven", True)
        assert working.users.rules["lab"] == ()
        loop.cancel()


async def test_a_command_is_answered_when_it_has_ended(api: Api) -> None:
    await api.report("edge-1")
    body = {"device_id": "edge-1", "action": "rescan"}
    made = await api.json("POST", "/api/v1/commands?wait=0.01", 201, body)
    assert (made["state"], made["waited"]) == ("scheduled", "timed_out")
    done = {"v": 1, "command_id": made["command_id"], "state": "succeeded", "at": SENT_AT}
    async with asyncio.TaskGroup() as group:
        shown = group.create_task(api.json("GET", f"/api/v1/commands/{made['command_id']}?wait=20"))
        await _waiting(api)
        await api.harness.ingest.process_batch([incoming("edge-1", json.dumps(done).encode(), UpChannel.RESULT)])
    assert (shown.result()["state"], shown.result()["waited"]) == ("succeeded", "settled")
    again = await api.json("GET", f"/api/v1/commands/{made['command_id']}?wait=20")
    assert (again["state"], again["waited"]) == ("succeeded", "settled")


async def test_trouble_that_lasts_is_told_before_the_time_is_over(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TROUBLE_GRACE", 0.02)
    monkeypatch.setattr(waiting, "_RECHECK", 0.01)
    await api.report("edge-1")
    await api.report("edge-2")
    api.harness.broker.fails.append(BrokerUnreachableError("no node answered"))
    body = {**BODY, "devices": ["edge-1", "edge-2"]}
    async with asyncio.TaskGroup() as group:
        decided = group.create_task(api.json("PUT", "/api/v1/quarantine?wait=20", body=body))
        await _waiting(api)
        await api.harness.drain()  # the first device fails, the second does not
    first, second = sorted(decided.result()["items"], key=lambda one: str(one["proof"]))
    assert (first["proof"], first["trouble"], first["waited"]) == ("in_trouble", "no node answered", "settled")
    assert (second["proof"], second["trouble"]) == ("proven", "")


async def test_trouble_that_ends_within_the_grace_is_no_failure(working: Api) -> None:
    working.harness.broker.fails.append(BrokerUnreachableError("no node answered"))
    found = await working.json("PUT", f"{EDGE}?wait=20", body=BODY)
    assert (found["proof"], found["trouble"], found["waited"]) == ("proven", "", "settled")


async def test_a_decision_that_another_one_replaced_is_superseded(api: Api) -> None:
    await api.report("edge-1")
    async with asyncio.TaskGroup() as group:
        decided = group.create_task(api.json("PUT", f"{EDGE}?wait=20", body={"level": "restricted", "reason": "odd"}))
        await _waiting(api)
        await api.json("POST", f"{EDGE}/release", body={"reason": "mistake"})
    found = decided.result()
    assert (found["level"], found["proof"], found["waited"]) == ("none", "superseded", "settled")


async def test_the_stop_answers_what_waits(api: Api) -> None:
    await api.report("edge-1")
    async with asyncio.TaskGroup() as group:
        decided = group.create_task(api.json("PUT", f"{EDGE}?wait=20", body=BODY))
        await _waiting(api)
        api.services.waiters.close()
    assert (decided.result()["proof"], decided.result()["waited"]) == ("pending", "stopping")


async def test_one_wait_too_many_is_answered_at_once_and_the_decision_stands(api: Api) -> None:
    await api.report("edge-1")
    waiters = api.services.waiters
    async with asyncio.TaskGroup() as group:
        for _ in range(MAX_WAITERS_PER_CALLER):
            group.create_task(waiters.wait({"edge-2": lambda _now: False}, 20.0, "operator:tests"))
        await _waiting(api, MAX_WAITERS_PER_CALLER)
        assert "cordon_api_waiters 8.0" in (await api.client.get("/metrics")).text
        found = await api.json("PUT", f"{EDGE}?wait=20", body=BODY)
        assert (found["level"], found["proof"], found["waited"]) == ("isolated", "pending", "too_many")
        waiters.close()
    assert api.harness.level("edge-1") is ContainmentLevel.ISOLATED


@pytest.mark.parametrize("seconds", ["-1", "56", "nan", "soon"])
async def test_a_wait_has_bounds(api: Api, seconds: str) -> None:
    await api.report("edge-1")
    await api.json("PUT", f"{EDGE}?wait={seconds}", 422, BODY)
    assert api.harness.level("edge-1") is ContainmentLevel.NONE


async def test_a_client_that_is_gone_frees_its_place(api: Api) -> None:
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    wait = RequestWait(
        Request({"type": "http"}, receive), api.harness.waiters, api.harness.fleet, "operator:tests", 20.0
    )
    async with asyncio.TaskGroup() as group:
        end = group.create_task(wait.until({"edge-1": lambda _now: False}))
        await _waiting(api)
        gone.set()
    assert end.result() is WaitEnd.DISCONNECTED
    assert len(api.services.waiters) == 0
