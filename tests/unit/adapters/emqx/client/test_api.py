"""Every request against every kind of bad answer, the paging of listings, and names in paths."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import MAX_PAGES, EmqxApi, find_ban, find_sessions
from controller.adapters.emqx.client.http import ApiRequest, EmqxHttpClient, HttpLimits
from controller.adapters.emqx.client.models import SourceRow
from controller.adapters.emqx.client.paths import Placeholder, segment, user_segment
from controller.adapters.emqx.client.requests import PAGE_ROWS
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.adapters.emqx.containment.authentication import AuthSettings, read_settings
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import Subject
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import Ban
from controller.ports.errors import (
    BrokerAnswerError,
    BrokerError,
    BrokerNotFoundError,
    BrokerRefusedError,
    BrokerUnreachableError,
)

Handler = Callable[[httpx.Request], httpx.Response]
QUICK = HttpLimits(attempts=2, wait_first_seconds=0.001, wait_most_seconds=0.001, wait_jitter_seconds=0.001)


def api_over(handler: Handler) -> EmqxApi:
    transport = httpx.MockTransport(handler)
    return EmqxApi(EmqxHttpClient(["http://n1"], "k", "s", clock=SystemClock(), limits=QUICK, transport=transport))


async def drain(listing: Any) -> list[Any]:
    return [row async for row in listing]


DEVICE, USER = Subject.client("dev"), Subject.user("u")
OF_DATABASE = "password_based:built_in_database"


def find_ban_of(subject: Subject) -> Callable[[EmqxApi], Awaitable[Any]]:
    return lambda api: find_ban(api, partial(requests.read_ban, subject), subject)


def sent(request: ApiRequest[Any]) -> Callable[[EmqxApi], Awaitable[Any]]:
    return lambda api: api.send(request)


# The calls by name, and whether "not found" is an answer to them.
CALLS: dict[str, tuple[Callable[[EmqxApi], Awaitable[Any]], bool]] = {
    "read_node": (sent(requests.read_node("n1")), False),
    "read_cluster": (sent(requests.read_cluster()), False),
    "read_client": (sent(requests.read_client("dev")), True),
    "read_clients": (sent(requests.read_clients(["dev"])), False),
    "read_subscriptions": (sent(requests.read_subscriptions("dev")), True),
    "unsubscribe": (sent(requests.unsubscribe("dev", ["a"])), True),
    "subscribe": (sent(requests.subscribe("dev", [SavedSubscription("a")])), True),
    "kick": (sent(requests.kick("dev")), True),
    "kick_many": (sent(requests.kick_many(["dev"])), False),
    "read_cache": (sent(requests.read_cache("dev")), True),
    "clear_cache": (sent(requests.clear_cache("dev")), True),
    "clear_all_caches": (sent(requests.clear_all_caches()), False),
    "list_bans": (lambda api: drain(api.rows(requests.list_bans)), False),
    "find_ban": (find_ban_of(DEVICE), False),
    "find_ban_of_user": (find_ban_of(USER), False),
    "add_ban": (sent(requests.add_ban(DEVICE, by="cordon/c", reason="r", until=None)), False),
    "lift_ban": (sent(requests.lift_ban(DEVICE)), True),
    "read_rules": (sent(requests.read_rules(DEVICE)), True),
    "write_rules": (sent(requests.write_rules(DEVICE, ())), False),
    "add_rules": (sent(requests.add_rules([(DEVICE, ())])), False),
    "delete_rules": (sent(requests.delete_rules(DEVICE)), True),
    "read_user_rules": (sent(requests.read_rules(USER)), True),
    "write_user_rules": (sent(requests.write_rules(USER, ())), False),
    "delete_user_rules": (sent(requests.delete_rules(USER)), True),
    "list_client_rules": (lambda api: drain(api.rows(requests.list_client_rules)), False),
    "list_user_rules": (sent(requests.list_user_rules()), False),
    "read_all_rules": (sent(requests.read_all_rules()), True),
    "write_all_rules": (sent(requests.write_all_rules(())), False),
    "delete_all_rules": (sent(requests.delete_all_rules()), True),
    "read_sources": (sent(requests.read_sources()), False),
    "create_database": (sent(requests.create_database()), False),
    "write_source": (sent(requests.write_source(SourceRow(type="file"))), False),
    "move_source": (sent(requests.move_source("file", "front")), False),
    "delete_source": (sent(requests.delete_source("file")), True),
    "read_authenticators": (sent(requests.read_authenticators()), False),
    "find_sessions": (lambda api: find_sessions(api, partial(requests.list_sessions, "u"), "u"), False),
    "list_retained": (lambda api: drain(api.rows(requests.list_retained)), False),
    "delete_retained": (sent(requests.delete_retained("a/b")), True),
    "read_user": (sent(requests.read_user(OF_DATABASE, "u")), True),
    "read_listeners": (sent(requests.read_listeners()), False),
    "read_listener": (sent(requests.read_listener("ssl:default")), True),
    "read_zone": (sent(requests.read_zone()), False),
    "publish": (sent(requests.publish("t", b"x")), False),
}
READS = {
    "read_node", "read_cluster", "read_client", "read_clients", "read_subscriptions", "read_cache", "list_bans",
    "find_ban", "find_ban_of_user", "add_ban", "read_rules", "read_user_rules", "list_client_rules", "list_user_rules",
    "read_sources", "read_authenticators", "find_sessions", "list_retained", "read_listeners", "read_listener",
}  # fmt: skip
ONCE = {"create_database", "publish"}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "BAD_API_KEY_OR_SECRET", BrokerRefusedError),
        (403, "UNAUTHORIZED_ROLE", BrokerRefusedError),
        (400, "BAD_REQUEST", BrokerRefusedError),
        (500, "NODE_DOWN", BrokerError),
        (503, "SERVICE_UNAVAILABLE", BrokerError),
    ],
)
async def test_each_call_maps_each_status(name: str, status: int, code: str, kind: type[BrokerError]) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(status, json={"code": code, "message": "x"})

    with pytest.raises(BrokerError) as caught:
        await CALLS[name][0](api_over(answer))
    assert caught.type is kind
    repeats = status >= 500 and name not in ONCE
    assert len(seen) == (QUICK.attempts if repeats else 1)


@pytest.mark.parametrize("name", CALLS)
async def test_not_found_is_an_answer_only_to_some_calls(name: str) -> None:
    call, may_be_absent = CALLS[name]
    api = api_over(lambda _: httpx.Response(404, json={"code": "NOT_FOUND", "message": "x"}))
    if may_be_absent:
        assert not await call(api)
    else:
        with pytest.raises(BrokerNotFoundError):
            await call(api)


@pytest.mark.parametrize("name", CALLS)
async def test_a_404_page_of_another_server_is_an_error_for_each_call(name: str) -> None:
    api = api_over(lambda _: httpx.Response(404, html="<h1>404</h1>"))
    with pytest.raises(BrokerAnswerError):
        await CALLS[name][0](api)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("fault", [httpx.ReadTimeout, httpx.ConnectError, httpx.ReadError])
async def test_each_call_maps_transport_errors(name: str, fault: type[httpx.TransportError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise fault("fault", request=request)

    with pytest.raises(BrokerUnreachableError):
        await CALLS[name][0](api_over(answer))


@pytest.mark.parametrize("name", sorted(READS))
@pytest.mark.parametrize("body", ["5", '"text"', "{}", "[5]", '{"data": 7}', '[{"unheard": true}]', '{"data": [{}]}'])
async def test_a_wrong_shape_is_not_taken_for_an_empty_answer(name: str, body: str) -> None:
    if (name, body) == ("read_cluster", "{}"):
        body = "[]"  # a cluster that tells no name of its own is possible, a list is not
    if (name, body[:8]) == ("read_cluster", '{"data":'):
        body = '{"self": 5}'
    if name == "list_user_rules" and body == '{"data": [{}]}':
        body = '{"data": [{"rules": 5}]}'
    api = api_over(lambda _: httpx.Response(200, content=body.encode()))
    with pytest.raises(BrokerAnswerError, match="wrong shape"):
        await CALLS[name][0](api)


def paged(rows: list[dict[str, Any]], *, hasnext: bool, seen: list[httpx.QueryParams]) -> Handler:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.params)
        page, limit = int(request.url.params["page"]), int(request.url.params["limit"])
        part = rows[(page - 1) * limit : page * limit]
        meta: dict[str, Any] = {"count": len(rows), "limit": limit, "page": page}
        if hasnext:
            meta["hasnext"] = page * limit < len(rows)
        return httpx.Response(200, json={"data": part, "meta": meta})

    return answer


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (PAGE_ROWS, 1), (PAGE_ROWS + 1, 2), (3 * PAGE_ROWS, 3)])
async def test_a_listing_reads_each_page_once(count: int, pages: int) -> None:
    bans = [{"as": "clientid", "who": f"c{n}", "by": "cordon/x", "at": 5, "until": 9} for n in range(count)]
    seen: list[httpx.QueryParams] = []
    read = await drain(api_over(paged(bans, hasnext=False, seen=seen)).rows(requests.list_bans))
    assert [ban.who for ban in read] == [row["who"] for row in bans]
    assert len(seen) == pages

    rules: list[dict[str, Any]] = [{"clientid": f"c{n}", "rules": []} for n in range(count)]
    seen.clear()
    listed = await drain(api_over(paged(rules, hasnext=True, seen=seen)).rows(requests.list_client_rules))
    assert [row.clientid for row in listed] == [row["clientid"] for row in rules]
    assert len(seen) == pages


async def test_an_endless_listing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.adapters.emqx.client.api.MAX_PAGES", 3)
    row = {"clientid": "c", "rules": []}
    api = api_over(lambda _: httpx.Response(200, json={"data": [row], "meta": {"hasnext": True}}))
    with pytest.raises(BrokerAnswerError, match="pages"):
        await drain(api.rows(requests.list_client_rules))
    assert MAX_PAGES > 3


async def test_a_ban_is_found_in_an_unfiltered_listing() -> None:
    rows: list[dict[str, Any]] = [
        {"as": "username", "who": "dev", "by": "a", "at": 1, "until": "infinity"},
        {"as": "clientid", "who": "dev2", "by": "b", "at": 1, "until": "infinity"},
        {"as": "clientid", "who": "dev", "by": "c", "at": "1970-01-01T00:00:05Z", "until": "1970-01-01T00:00:09+00:00"},
    ]
    seen: list[httpx.QueryParams] = []
    ban = await find_ban_of(DEVICE)(api_over(paged(rows, hasnext=False, seen=seen)))
    assert ban == Ban(kind="clientid", who="dev", by="c", reason="", at=5.0, until=9.0)
    assert seen[0]["clientid"] == "dev"


async def test_an_existing_ban_without_its_row_is_an_answer_error() -> None:
    api = api_over(lambda _: httpx.Response(400, json={"code": "ALREADY_EXISTS", "message": "it is there"}))
    with pytest.raises(BrokerAnswerError, match="did not say which"):
        await CALLS["add_ban"][0](api)
    with pytest.raises(EmqxConflictError):
        await CALLS["write_rules"][0](api)


async def test_publishing_tells_whether_there_was_a_subscriber() -> None:
    assert await api_over(lambda _: httpx.Response(200, json={"id": "x"})).send(requests.publish("t", b"\x00\xff"))
    nobody = {"reason_code": 16, "message": "no_matching_subscribers"}
    assert not await api_over(lambda _: httpx.Response(202, json=nobody)).send(requests.publish("t", b""))


@pytest.mark.parametrize("refused", ["/configs/global_zone", "/listeners"])
async def test_settings_that_the_key_may_not_read_lower_the_strength(refused: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v5")
        if path.startswith(refused):
            return httpx.Response(403, json={"code": "UNAUTHORIZED_ROLE", "message": "x"})
        if path == "/authentication":
            return httpx.Response(200, json=[{"id": "password_based:built_in_database", "enable": True}])
        return httpx.Response(200, json={"mqtt": {"peer_cert_as_clientid": "cn"}})

    settings = await read_settings(api_over(answer))
    assert settings == AuthSettings(True, False, None, refuses_wildcard=False)


@pytest.mark.parametrize("client_id", [".", "..", "", "a/b", "a%2fb", "+", "#", "é", "a\n"])
def test_a_client_id_that_is_no_path_segment_is_refused(client_id: str) -> None:
    with pytest.raises(BrokerRefusedError):
        segment(client_id)


@pytest.mark.parametrize("name", [".", "..", "", "bell\x07", "x" * 257])
def test_a_user_name_that_is_no_path_segment_is_refused(name: str) -> None:
    with pytest.raises(BrokerRefusedError):
        user_segment(name)
    for build in (requests.read_ban, requests.lift_ban, requests.read_rules, requests.delete_rules):
        with pytest.raises(BrokerRefusedError):
            build(Subject.user(name))


@pytest.mark.parametrize("topic", ["", ".", "..", "#", "a/+", "a/#"])
def test_a_retained_message_is_deleted_by_its_exact_topic_only(topic: str) -> None:
    with pytest.raises(BrokerRefusedError):
        requests.delete_retained(topic)


def test_a_placeholder_is_not_escaped() -> None:
    assert requests.kick(Placeholder("<client id>")).path == "/clients/<client id>"
