"""What the leader alone does reaches it through any controller, as if the client had asked it."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from controller.adapters.http_peers import AT_ONCE
from controller.api import forwarding_places
from controller.api.server import create_list_server
from controller.domain.audit_kinds import AuditKind
from tests.support.api import HEADERS, Api
from tests.support.peers import Pair, pair


class Failing(httpx.AsyncBaseTransport):
    """Raises, or never answers."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.cancelled = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.error is not None:
            raise self.error
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError


@pytest.fixture
async def two(api: Api) -> AsyncIterator[Pair]:
    async with pair(api) as made:
        yield made


async def test_a_decision_of_an_operator_is_carried_out_through_the_follower(two: Pair) -> None:
    await two.api.report("edge-1")
    body = {"level": "restricted", "reason": "x"}
    answer = await two.follower.put("/api/v1/quarantine/edge-1", json=body, params={"wait": "0"})
    assert answer.status_code == 200
    assert answer.json()["level"] == "restricted"
    assert [one.target for one in two.peers.sent] == [b"/api/v1/quarantine/edge-1?wait=0"]
    shown = await two.follower.get("/api/v1/devices/edge-1")
    assert shown.json()["level"] == "restricted"
    assert len(two.peers.sent) == 1  # rows are read here


async def test_what_the_leader_remembers_is_read_from_it(two: Pair) -> None:
    answer = await two.follower.get("/api/v1/guard")
    assert answer.status_code == 200
    assert answer.json() == (await two.leader.get("/api/v1/guard")).json()
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_audit_and_limits_see_the_address_of_the_client(two: Pair) -> None:
    wrong = {"Authorization": "Bearer cordon_wrong"}
    for _ in range(21):
        refused = await two.follower.post("/api/v1/waivers", json={}, headers=wrong)
    assert refused.status_code == 429
    store = two.api.harness.store
    lines = await store.audit(kind=AuditKind.API_ACCESS_REFUSED)
    assert {(one.entry.detail or {})["peer"] for one in lines} == {"192.0.2.7"}
    assert (await two.leader.post("/api/v1/waivers", json={}, headers=wrong)).status_code == 401


async def test_a_page_and_its_cookie_pass_unchanged(two: Pair) -> None:
    page = await two.follower.get("/login", headers={"Authorization": ""})
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.text == (await two.leader.get("/login", headers={"Authorization": ""})).text


async def test_without_a_leader_a_client_is_told_to_come_again(two: Pair) -> None:
    two.url = ""
    for answer in (await two.follower.post("/api/v1/waivers", json={}), await two.follower.get("/me")):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"]["code"] == "no_leader"
    assert (await two.follower.get("/api/v1/devices")).status_code == 200
    assert (await two.follower.get("/nowhere")).status_code == 404


async def test_what_no_route_serves_is_not_forwarded(two: Pair) -> None:
    for method, path in (("POST", "/nowhere"), ("POST", "/crl/x.crl"), ("DELETE", "/api/v1/waivers")):
        assert (await two.follower.request(method, path)).status_code in (404, 405)
    assert two.peers.sent == []


async def test_the_listener_of_revocation_lists_serves_nothing_else(two: Pair) -> None:
    app = create_list_server(replace(two.api.services, leader=None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lists", headers=HEADERS) as lists:
        for method, path in (("GET", "/login"), ("GET", "/api/v1/accounts"), ("POST", "/api/v1/tokens")):
            assert (await lists.request(method, path, content=b"{}")).status_code == 404


async def test_a_forwarded_request_is_never_forwarded_again(two: Pair) -> None:
    """The one that was taken for the leader leads no more: it does not ask on."""
    two.leads = False
    answer = await two.follower.post("/api/v1/waivers", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_leader")
    assert len(two.peers.sent) == 1


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ConnectTimeout("late"), httpx.PoolTimeout("x")])
async def test_a_leader_that_cannot_be_reached_is_none(api: Api, error: Exception) -> None:
    async with pair(api, Failing(error)) as two:
        answer = await two.follower.post("/api/v1/waivers", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_leader")
    assert two.logged


async def test_whether_a_leader_did_it_that_did_not_answer_is_not_known(api: Api) -> None:
    async with pair(api, Failing(httpx.ReadError("reset"))) as two:
        changing = await two.follower.post("/api/v1/waivers", json={})
        reading = await two.follower.get("/api/v1/guard")
    assert (changing.status_code, changing.json()["error"]["code"]) == (502, "leader_lost")
    assert (reading.status_code, reading.json()["error"]["code"]) == (503, "no_leader")


async def test_who_is_not_known_does_not_keep_others_from_the_leader(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding_places, "ROOM_SECONDS", 0.05)
    async with pair(api, Failing()) as two, asyncio.TaskGroup() as group:
        wrong = {"Authorization": "Bearer cordon_wrong"}

        def send(headers: dict[str, str]) -> asyncio.Task[httpx.Response]:
            return group.create_task(two.follower.post("/api/v1/waivers", json={}, headers=headers))

        strangers = [send(wrong) for _ in range(40)]
        refused, held = await asyncio.wait(strangers, timeout=0.5)
        assert len(held) == len(two.peers.sent) == forwarding_places.EACH_STRANGER
        assert {(one.result().status_code, one.result().json()["error"]["code"]) for one in refused} == {(429, "busy")}
        known = [send({}) for _ in range(forwarding_places.EACH_CALLER + 1)]
        refused, _ = await asyncio.wait(known, timeout=0.5)
        assert [one.result().status_code for one in refused] == [429]
        assert len(two.peers.sent) == forwarding_places.EACH_STRANGER + forwarding_places.EACH_CALLER
        for one in (*strangers, *known):
            one.cancel()


def test_there_is_a_connection_for_each_place() -> None:
    assert forwarding_places.STRANGERS + forwarding_places.CALLERS == AT_ONCE


async def test_a_client_that_goes_ends_its_request_at_the_leader(api: Api) -> None:
    hanging = Failing()
    sent: list[object] = []
    async with pair(api, hanging) as two:
        app = two.follower._transport
        assert isinstance(app, httpx.ASGITransport)
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

        async def receive() -> MutableMapping[str, Any]:
            if len(messages) == 1:
                await asyncio.sleep(0)
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "path": "/api/v1/guard", "scheme": "http",
            "raw_path": b"/api/v1/guard", "query_string": b"", "root_path": "", "client": ("192.0.2.7", 1),
            "headers": [(b"host", b"cordon")], "server": ("cordon", 80),
        }  # fmt: skip
        await app.app(scope, receive, send)
    assert hanging.cancelled.is_set()
    assert sent == []
