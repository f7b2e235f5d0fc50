"""The HTTP client against servers that answer badly, over real sockets."""

import asyncio
import base64
import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote, quote_plus

import httpx
import pytest

from controller.adapters.emqx.client.http import (
    MAX_ADDRESSES,
    ApiRequest,
    ApiResponse,
    CallOptions,
    EmqxHttpClient,
    HttpLimits,
    HttpMethod,
    address,
)
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.adapters.system import SystemClock
from controller.ports.broker import ProofStep
from controller.ports.errors import (
    BrokerAnswerError,
    BrokerError,
    BrokerNotFoundError,
    BrokerRefusedError,
    BrokerUnreachableError,
)
from tests.support.waiting import eventually
from tests.unit.adapters.emqx.client.bad_server import CLOSE, HANG, bad_server, response

SECRET = "s3cret-of-the-key"
GOOD = response(200, b'{"fine": true}')


def always(raw: bytes) -> Callable[[str], bytes]:
    return lambda _: raw


def request(
    method: HttpMethod = "GET", *, what: str = "test", body: object = None, repeat: bool = True
) -> ApiRequest[object]:
    return ApiRequest(method, "/nodes", what, lambda _answer: None, body=body, repeat=repeat)


async def ask(bases: list[str], limits: HttpLimits, method: HttpMethod = "GET", *, repeat: bool = True) -> ApiResponse:
    async with EmqxHttpClient(bases, "key", SECRET, clock=SystemClock(), limits=limits) as http:
        return await http.call(request(method, body={"a": 1} if method != "GET" else None, repeat=repeat))


def refused_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize(
    ("raw", "error", "transient"),
    [
        (response(401, b'{"code":"BAD_API_KEY_OR_SECRET","message":"Check"}'), BrokerRefusedError, False),
        (response(403, b'{"code":"UNAUTHORIZED_ROLE","message":"no"}'), BrokerRefusedError, False),
        (response(400, b'{"code":"BAD_REQUEST","message":"no"}'), BrokerRefusedError, False),
        (response(404, b'{"code":"CLIENTID_NOT_FOUND","message":"no"}'), BrokerNotFoundError, False),
        (response(409, b'{"code":"ALREADY_EXISTS","message":"there"}'), EmqxConflictError, False),
        (response(400, b'{"code":"ALREADY_EXISTS","message":"{}"}'), EmqxConflictError, False),
        (response(429, b""), BrokerError, True),
        (response(500, b'{"code":"NODE_DOWN","message":"bad rpc"}'), BrokerError, True),
        (response(503, b"<html>", "text/html"), BrokerError, True),
        (response(404, b"<html>404</html>", "text/html"), BrokerAnswerError, True),
        (response(302, b"", extra="location: http://elsewhere/\r\n"), BrokerAnswerError, True),
        (response(200, b"<html>hello</html>", "text/html"), BrokerAnswerError, True),
        (response(200, b""), BrokerAnswerError, True),
        (response(204, b""), BrokerAnswerError, True),
        (response(200, b'{"half": '), BrokerAnswerError, True),
        (response(200, b"[" * 5000), BrokerAnswerError, True),
        (response(200, b'"' + b"x" * 20_000 + b'"'), BrokerAnswerError, True),
        (response(200, b"{}", extra="content-encoding: gzip\r\n"), BrokerAnswerError, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{CUT", BrokerAnswerError, True),
        (b"garbage all over\r\n\r\n", BrokerAnswerError, True),
        (CLOSE, BrokerAnswerError, True),
        (HANG, BrokerUnreachableError, True),
    ],
)
async def test_each_bad_answer_raises_its_error(
    quick: HttpLimits, raw: bytes, error: type[BrokerError], transient: bool
) -> None:
    async with bad_server(always(raw)) as bad:
        begun = time.monotonic()
        with pytest.raises(error) as caught:
            await ask([bad.base], quick)
        assert time.monotonic() - begun < quick.call_seconds + 1
        assert caught.type is error or error is BrokerUnreachableError
        assert caught.value.transient is transient
        assert bad.base in str(caught.value)
        assert "GET /nodes" in str(caught.value)
        assert len(bad.seen) == (quick.attempts if transient else 1)


async def test_connection_refused_is_unreachable(quick: HttpLimits) -> None:
    with pytest.raises(BrokerUnreachableError, match="no connection"):
        await ask([refused_port()], quick)


async def test_a_slow_answer_ends_with_the_attempts_timeout(quick: HttpLimits) -> None:
    async with bad_server(always(GOOD), drip_seconds=0.2) as bad:
        begun = time.monotonic()
        with pytest.raises(BrokerUnreachableError):
            await ask([bad.base], quick)
        assert time.monotonic() - begun < quick.call_seconds + 1


async def test_a_call_ends_in_time_when_every_node_hangs(quick: HttpLimits) -> None:
    short = HttpLimits(read_seconds=0.3, attempt_seconds=0.3, call_seconds=0.5, attempts=50, wait_first_seconds=0.01)
    async with bad_server(always(HANG)) as one, bad_server(always(HANG)) as two:
        begun = time.monotonic()
        with pytest.raises(BrokerUnreachableError, match=r"in 0\.5 s"):
            await ask([one.base, two.base], short)
        assert time.monotonic() - begun < 2


@pytest.mark.parametrize("raw", [HANG, CLOSE, response(503, b""), response(200, b"nonsense")])
async def test_fail_over_makes_the_answering_node_the_first(quick: HttpLimits, raw: bytes) -> None:
    async with bad_server(always(raw)) as bad, bad_server(always(GOOD)) as good:
        async with EmqxHttpClient([bad.base, good.base], "key", SECRET, clock=SystemClock(), limits=quick) as http:
            first = await http.call(request())
            second = await http.call(request())
        assert first.node == second.node == good.base
        assert first.data == {"fine": True}
        assert len(bad.seen) == 1


async def test_a_refused_connection_fails_over_even_for_a_call_that_must_not_be_repeated(quick: HttpLimits) -> None:
    async with bad_server(always(GOOD)) as good:
        answer = await ask([refused_port(), good.base], quick, "POST", repeat=False)
        assert answer.node == good.base


async def test_a_call_that_must_not_be_repeated_is_sent_once(quick: HttpLimits) -> None:
    async with bad_server(always(HANG)) as bad, bad_server(always(GOOD)) as good:
        with pytest.raises(BrokerUnreachableError):
            await ask([bad.base, good.base], quick, "POST", repeat=False)
        assert (len(bad.seen), len(good.seen)) == (1, 0)


async def test_a_call_bound_to_a_node_asks_that_node_once(quick: HttpLimits) -> None:
    async with bad_server(always(CLOSE)) as bad, bad_server(always(GOOD)) as good:
        async with EmqxHttpClient([good.base, bad.base], "key", SECRET, clock=SystemClock(), limits=quick) as http:
            with pytest.raises(BrokerAnswerError):
                await http.call(request(), CallOptions(node=bad.base))
        assert (len(bad.seen), len(good.seen)) == (1, 0)


async def test_a_retry_can_succeed(quick: HttpLimits) -> None:
    answers = iter([response(500, b"{}"), GOOD])
    async with bad_server(lambda _: next(answers)) as bad:
        assert (await ask([bad.base], quick)).data == {"fine": True}


class GatedTransport(httpx.AsyncBaseTransport):
    """Answers once it is opened; counts the exchanges that wait for it, and all of them."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.waiting = 0
        self.total = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.waiting += 1
        self.total += 1
        await self.opened.wait()
        self.waiting -= 1
        return httpx.Response(200, json={"fine": True}, request=request)


async def test_concurrent_exchanges_are_bounded() -> None:
    gate = GatedTransport()
    http = EmqxHttpClient(
        ["http://n1"], "key", SECRET, clock=SystemClock(), limits=HttpLimits(at_once=2), transport=gate
    )
    calls = asyncio.gather(*(http.call(request()) for _ in range(4)))
    await eventually(lambda: gate.waiting == 2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert gate.total == 2, "the others wait for a slot"
    gate.opened.set()
    assert [answer.data for answer in await calls] == [{"fine": True}] * 4
    assert gate.total == 4


async def test_each_exchange_is_recorded_with_its_node_and_answer(quick: HttpLimits) -> None:
    steps: list[ProofStep] = []
    async with bad_server(always(response(503, b""))) as bad, bad_server(always(GOOD)) as good:
        async with EmqxHttpClient([bad.base, good.base], "key", SECRET, clock=SystemClock(), limits=quick) as http:
            await http.call(request(what="look"), CallOptions(listener=steps.append))
        assert [(step.what, step.call, step.node) for step in steps] == [
            ("look", "GET /nodes", bad.base),
            ("look", "GET /nodes", good.base),
        ]
    assert "503" in steps[0].answer
    assert steps[1].answer == "200"


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("echo", [SECRET, _basic(f"key:{SECRET}"), _basic(f"key:{SECRET}").rstrip("="), _basic(SECRET)])
@pytest.mark.parametrize("status", [400, 401, 404, 500])
async def test_no_text_contains_the_secret(quick: HttpLimits, status: int, echo: str) -> None:
    body = f'{{"code":"ECHO","message":"you said {echo}"}}'.encode()
    steps: list[ProofStep] = []
    async with bad_server(always(response(status, body))) as bad:
        async with EmqxHttpClient([bad.base], "key", SECRET, clock=SystemClock(), limits=quick) as http:
            with pytest.raises(BrokerError) as caught:
                await http.call(request(what="look"), CallOptions(listener=steps.append))
            assert SECRET not in repr(http)
        assert "authorization: basic" in bad.headers[0].lower()
    assert echo not in str(caught.value)
    assert all(echo not in step.answer for step in steps)


ODD = 'a"b/c\\d zu+1'


@pytest.mark.parametrize(
    ("secret", "bearer", "echo"),
    [
        (ODD, "", json.dumps(ODD)[1:-1]),
        (ODD, "", json.dumps(ODD)[1:-1].replace("/", "\\/")),
        (ODD, "", quote(ODD, safe="")),
        (ODD, "", quote_plus(ODD)),
        ("t\u00fcr", "", "t\u00fcr"),
        ("t\u00fcr", "", "t\\u00fcr"),
        (SECRET, "a-login.of-the.dashboard", "Bearer a-login.of-the.dashboard"),
        (SECRET, "a-login.of-the.dashboard", _basic("a-login.of-the.dashboard")),
    ],
)
async def test_no_text_contains_a_login_or_a_secret_in_another_form(
    quick: HttpLimits, secret: str, bearer: str, echo: str
) -> None:
    """Finding: only the secret as such was removed, which no header has, and a login never."""
    body = f'{{"code":"ECHO","message":"you said <{echo}>"}}'.encode()
    async with (
        bad_server(always(response(400, body))) as bad,
        EmqxHttpClient([bad.base], "key", secret, clock=SystemClock(), limits=quick) as http,
    ):
        with pytest.raises(BrokerError, match=r"you said <(Bearer )?\*\*\*") as caught:
            await http.call(replace(request(what="look"), bearer=bearer))
    assert echo not in str(caught.value)


def test_addresses_are_normalised() -> None:
    assert address(" http://EMQX1.example:18083/ ") == "http://emqx1.example:18083"
    assert address("https://[::1]:18084") == "https://[::1]:18084"


@pytest.mark.parametrize(
    "text",
    ["", "emqx1:18083", "ftp://emqx1", "http://", "http://u:p@emqx1", "http://emqx1/api/v5", "http://emqx1?x=1"],
)
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        address(text)


@pytest.mark.parametrize("count", [0, MAX_ADDRESSES + 1])
def test_the_number_of_addresses_is_bounded(count: int) -> None:
    with pytest.raises(ValueError, match="addresses"):
        EmqxHttpClient([f"http://node{n}" for n in range(count)], "k", "s", clock=SystemClock())
