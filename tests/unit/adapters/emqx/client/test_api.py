"""Every call of the API against every kind of bad answer, and the paging of listings."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.http import EmqxHttpClient, HttpLimits
from controller.adapters.emqx.client.models import SourceRow
from controller.adapters.emqx.client.requests import segment
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.adapters.emqx.client.subject_api import MAX_PAGES, PAGE_ROWS
from controller.adapters.emqx.containment.authentication import AuthSettings, read_settings
from controller.adapters.system import SystemClock
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


# What each call is, and whether "not there" is an answer to it.
CALLS: dict[str, tuple[Callable[[EmqxApi], Awaitable[Any]], bool]] = {
    "nodes": (lambda api: api.nodes(), False),
    "own_name": (lambda api: api.own_name(), False),
    "client": (lambda api: api.client("dev"), True),
    "subscriptions": (lambda api: api.subscriptions("dev"), True),
    "unsubscribe": (lambda api: api.unsubscribe("dev", ["a"]), True),
    "kick": (lambda api: api.kick("dev"), True),
    "cache": (lambda api: api.cache("dev"), True),
    "clear_cache": (lambda api: api.clear_cache("dev"), True),
    "clear_all_caches": (lambda api: api.clear_all_caches(), False),
    "bans": (lambda api: drain(api.bans()), False),
    "ban_of": (lambda api: api.ban_of("dev"), False),
    "add_ban": (lambda api: api.add_ban("dev", by="cordon/c", reason="r", until=None), False),
    "lift_ban": (lambda api: api.lift_ban("dev"), True),
    "rules": (lambda api: api.rules("dev"), True),
    "write_rules": (lambda api: api.write_rules("dev", ()), False),
    "delete_rules": (lambda api: api.delete_rules("dev"), True),
    "client_rules": (lambda api: drain(api.client_rules()), False),
    "has_user_rules": (lambda api: api.has_user_rules(), False),
    "all_rules": (lambda api: api.all_rules(), True),
    "write_all_rules": (lambda api: api.write_all_rules(()), False),
    "delete_all_rules": (lambda api: api.delete_all_rules(), True),
    "sources": (lambda api: api.sources(), False),
    "create_database": (lambda api: api.create_database(), False),
    "write_source": (lambda api: api.write_source(SourceRow(type="file")), False),
    "move_source": (lambda api: api.move_source("file", "front"), False),
    "delete_source": (lambda api: api.delete_source("file"), True),
    "authenticators": (lambda api: api.authenticators(), False),
    "sessions_of": (lambda api: api.sessions_of("u"), False),
    "subscribe": (lambda api: api.subscribe("dev", [SavedSubscription("a")]), True),
    "kick_many": (lambda api: api.kick_many(["dev"]), False),
    "ban_of_user": (lambda api: api.ban_of("u", "username"), False),
    "user_rules": (lambda api: api.user_rules("u"), True),
    "write_user_rules": (lambda api: api.write_user_rules("u", ()), False),
    "delete_user_rules": (lambda api: api.delete_user_rules("u"), True),
    "retained_of": (lambda api: api.retained_of("dev"), False),
    "delete_retained": (lambda api: api.delete_retained("a/b"), True),
    "is_superuser": (lambda api: api.is_superuser("password_based:built_in_database", "u"), True),
    "listeners": (lambda api: api.listeners(), False),
    "listener": (lambda api: api.listener("ssl:default"), True),
    "zone": (lambda api: api.zone(), False),
    "publish": (lambda api: api.publish("t", b"x"), False),
}
READS = [
    name
    for name in CALLS
    if name
    in {"nodes", "client", "subscriptions", "cache", "bans", "ban_of", "add_ban", "rules", "client_rules"}
    | {"sessions_of", "ban_of_user", "user_rules", "retained_of"}
    | {"has_user_rules", "sources", "authenticators", "listeners", "listener", "own_name"}
]
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
async def test_absence_is_an_answer_only_where_it_can_be_one(name: str) -> None:
    call, may_be_absent = CALLS[name]
    api = api_over(lambda _: httpx.Response(404, json={"code": "NOT_FOUND", "message": "x"}))
    if may_be_absent:
        assert not await call(api)
    else:
        with pytest.raises(BrokerNotFoundError):
            await call(api)


@pytest.mark.parametrize("name", CALLS)
async def test_a_404_of_something_else_is_absence_nowhere(name: str) -> None:
    api = api_over(lambda _: httpx.Response(404, html="<h1>404</h1>"))
    with pytest.raises(BrokerAnswerError):
        await CALLS[name][0](api)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("fault", [httpx.ReadTimeout, httpx.ConnectError, httpx.ReadError, httpx.PoolTimeout])
async def test_each_call_maps_silence(name: str, fault: type[httpx.TransportError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise fault("fault", request=request)

    with pytest.raises(BrokerUnreachableError):
        await CALLS[name][0](api_over(answer))


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("body", ["5", '"text"', "{}", "[5]", '{"data": 7}', '[{"unheard": true}]', '{"data": [{}]}'])
async def test_a_wrong_shape_is_never_taken_for_an_empty_answer(name: str, body: str) -> None:
    if (name, body) == ("own_name", "{}"):
        body = "[]"  # a cluster that tells no name of its own is possible, a list is not
    if (name, body[:8]) == ("own_name", '{"data":'):
        body = '{"self": 5}'
    if name == "has_user_rules" and body == '{"data": [{}]}':
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
async def test_every_page_is_read_and_none_too_many(count: int, pages: int) -> None:
    bans = [{"as": "clientid", "who": f"c{n}", "by": "cordon/x", "at": 5, "until": 9} for n in range(count)]
    seen: list[httpx.QueryParams] = []
    read = await drain(api_over(paged(bans, hasnext=False, seen=seen)).bans())
    assert [ban.who for ban in read] == [row["who"] for row in bans]
    assert len(seen) == pages

    rules: list[dict[str, Any]] = [{"clientid": f"c{n}", "rules": []} for n in range(count)]
    seen.clear()
    listed = await drain(api_over(paged(rules, hasnext=True, seen=seen)).client_rules())
    assert [client for client, _ in listed] == [row["clientid"] for row in rules]
    assert len(seen) == pages


async def test_a_listing_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.adapters.emqx.client.subject_api.MAX_PAGES", 3)
    row = {"clientid": "c", "rules": []}
    api = api_over(lambda _: httpx.Response(200, json={"data": [row], "meta": {"hasnext": True}}))
    with pytest.raises(BrokerAnswerError, match="pages"):
        await drain(api.client_rules())
    assert MAX_PAGES > 3


async def test_the_own_ban_is_found_among_the_bans_of_an_emqx_without_filters() -> None:
    rows: list[dict[str, Any]] = [
        {"as": "username", "who": "dev", "by": "a", "at": 1, "until": "infinity"},
        {"as": "clientid", "who": "dev2", "by": "b", "at": 1, "until": "infinity"},
        {"as": "clientid", "who": "dev", "by": "c", "at": "1970-01-01T00:00:05Z", "until": "1970-01-01T00:00:09+00:00"},
    ]
    seen: list[httpx.QueryParams] = []
    ban = await api_over(paged(rows, hasnext=False, seen=seen)).ban_of("dev")
    assert ban == Ban(kind="clientid", who="dev", by="c", reason="", at=5.0, until=9.0)
    assert seen[0]["clientid"] == "dev"


async def test_an_existing_ban_without_its_row_is_an_answer_error() -> None:
    api = api_over(lambda _: httpx.Response(400, json={"code": "ALREADY_EXISTS", "message": "it is there"}))
    with pytest.raises(BrokerAnswerError, match="did not say which"):
        await api.add_ban("dev", by="cordon/c", reason="r", until=None)
    with pytest.raises(EmqxConflictError):
        await api.write_rules("dev", ())


async def test_many_subscriptions_are_cut_in_portions() -> None:
    sizes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sizes.append(request.content.count(b'"topic"'))
        return httpx.Response(204)

    await api_over(answer).unsubscribe("dev", [f"t/{n}" for n in range(1001)])
    assert sizes == [500, 500, 1]


async def test_nobody_listening_is_told_from_somebody() -> None:
    assert await api_over(lambda _: httpx.Response(200, json={"id": "x"})).publish("t", b"\x00\xff")
    nobody = {"reason_code": 16, "message": "no_matching_subscribers"}
    assert not await api_over(lambda _: httpx.Response(202, json=nobody)).publish("t", b"")


@pytest.mark.parametrize("refused", ["/configs/global_zone", "/listeners"])
async def test_settings_that_the_key_may_not_read_lower_the_grade(refused: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v5")
        if path.startswith(refused):
            return httpx.Response(403, json={"code": "UNAUTHORIZED_ROLE", "message": "x"})
        if path == "/authentication":
            return httpx.Response(200, json=[{"id": "password_based:built_in_database", "enable": True}])
        return httpx.Response(200, json={"mqtt": {"peer_cert_as_clientid": "cn"}})

    settings = await read_settings(api_over(answer))
    assert settings == AuthSettings(authenticates=True, id_from_certificate=False, listeners=None)


@pytest.mark.parametrize("client_id", [".", "..", "", "a/b", "a%2fb", "+", "#", "é", "a\n"])
def test_an_id_that_would_leave_its_place_in_the_path_is_refused(client_id: str) -> None:
    with pytest.raises(BrokerRefusedError):
        segment(client_id)
