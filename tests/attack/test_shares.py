"""One address among many at a listener: its share of downloads and of requests, and nobody else waits for it."""

import asyncio
import socket
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.adapters.http_server.admission import ConnectionLimits
from controller.adapters.http_server.protocol import RATE_WINDOW
from controller.api import request_share
from controller.api.downloads import create_downloads
from controller.api.request_share import BURST, MAX_WAIT, PER_SECOND, WITH_TOKEN, RequestShare
from tests.support.http_listener import LARGE, Loop, RunningListener, run_in, running_listener
from tests.support.waiting import eventually

TAKE: Final = b"GET /targets/big.bin HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    made: Loop = request.param
    return made


def test_downloads_that_nobody_takes_keep_no_other_address_out(loop: Loop, tmp_path: Path) -> None:
    """Finding: 64 clients that did not read stopped the updates of all devices."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "big.bin").write_bytes(b"x" * LARGE)
    app = create_downloads(tmp_path, mib_per_second=0, most=8, most_per_address=2)

    async def scenario() -> None:
        async with running_listener(ConnectionLimits(32, 16), app) as running:
            request = b"GET /targets/big.bin HTTP/1.1\r\nHost: x\r\n\r\n"
            clients = [await running.connect("127.0.0.2", request, receive_buffer=4096) for _ in range(12)]
            held = running.server.watched
            await eventually(lambda: len([each for each in held() if each.has_unsent]) == 2, "two downloads")
            assert b" 503 " in await running.fetch("127.0.0.2")
            assert b" 404 " in await running.fetch("127.0.0.3")
            running.end_overdue(0)
            for n in (1, 2, 3):
                running.end_overdue(n * (RATE_WINDOW + 1))
            assert running.server.open == 0

            async def admitted() -> bool:
                return b" 404 " in await running.fetch("127.0.0.2")

            await eventually(admitted, "the address may download again")
            for client in clients:
                client.close()

    run_in(loop, scenario)


def _downloads(folder: Path, most: int, most_per_address: int) -> ASGIApp:
    (folder / "targets").mkdir()
    (folder / "targets" / "big.bin").write_bytes(b"x" * LARGE)
    return create_downloads(folder, mib_per_second=0, most=most, most_per_address=most_per_address)


def _held(running: RunningListener) -> Counter[str]:
    """Downloads that somebody holds, by address."""
    return Counter(each.address for each in running.server.watched() if each.has_unsent)


async def _hold(running: RunningListener, address: str, count: int) -> list[socket.socket]:
    before = _held(running)[address]
    clients = [await running.connect(address, TAKE, receive_buffer=4096) for _ in range(count)]
    await eventually(lambda: _held(running)[address] == before + count, f"the downloads of {address}")
    return clients


def test_a_new_address_gets_a_download_while_few_hold_all(
    loop: Loop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Finding: four addresses held every place, and no device got its update."""
    app = _downloads(tmp_path, most=8, most_per_address=2)

    async def scenario() -> None:
        async with running_listener(ConnectionLimits(32, 16), app) as running:
            clients = [each for n in range(4) for each in await _hold(running, f"127.0.0.{10 + n}", 2)]
            for n in range(4):
                clients += await _hold(running, f"127.0.0.{20 + n}", 1)
            await eventually(lambda: sorted(_held(running).values()) == [1] * 8, "each address has its place")
            assert b" 503 " in await running.fetch("127.0.0.30"), "no address has two"
            assert b" 503 " in await running.fetch("127.0.0.10"), "nor gets a second one"
            for client in clients:
                client.close()

    run_in(loop, scenario)
    assert caplog.records == []


def test_the_slowest_of_the_address_with_most_gives_way(loop: Loop, tmp_path: Path) -> None:
    app = _downloads(tmp_path, most=5, most_per_address=3)

    async def scenario() -> None:
        async with running_listener(ConnectionLimits(32, 16), app) as running:
            others = await _hold(running, "127.0.0.3", 2)
            slow = await _hold(running, "127.0.0.2", 2)
            fast = await running.connect("127.0.0.2", TAKE, receive_buffer=65536)
            await _receive(fast, LARGE // 2)
            new = await _hold(running, "127.0.0.4", 1)
            assert sorted([await _receive(each, LARGE) for each in slow]) == [False, True], "one of the slow ones ended"
            assert await _receive(fast, LARGE // 2)
            assert _held(running)["127.0.0.3"] == 2
            for client in (*others, *slow, *new, fast):
                client.close()

    run_in(loop, scenario)


async def _receive(client: socket.socket, count: int) -> bool:
    """Takes so many bytes; False if the server closes the connection before."""
    while count > 0:
        try:
            piece = await asyncio.get_running_loop().sock_recv(client, min(count, 65536))
        except ConnectionResetError:
            return False
        if not piece:
            return False
        count -= len(piece)
    return True


def test_downloads_of_one_address_displace_none_of_their_own(loop: Loop, tmp_path: Path) -> None:
    app = _downloads(tmp_path, most=4, most_per_address=4)

    async def scenario() -> None:
        async with running_listener(ConnectionLimits(32, 16), app) as running:
            clients = await _hold(running, "127.0.0.2", 3) + await _hold(running, "127.0.0.3", 1)
            assert b" 503 " in await running.fetch("127.0.0.2")
            clients += await _hold(running, "127.0.0.3", 1)
            await eventually(lambda: _held(running) == {"127.0.0.2": 2, "127.0.0.3": 2}, "half each")
            assert b" 503 " in await running.fetch("127.0.0.3")
            for client in clients:
                client.close()

    run_in(loop, scenario)


class _Requests:
    """Requests by address over `RequestShare`; time passes only while one waits its turn."""

    def __init__(self, token: object = None) -> None:
        self.now = 100.0
        self.done: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.waits: list[float] = []
        self._token = token
        self._share = RequestShare(self._answer, lambda: self.now, self._sleep)

    async def send(self, address: str, count: int) -> None:
        for _ in range(count):
            scope = {"type": "http", "client": (address, 1), "state": {}, "method": "GET", "path": "/", "headers": []}
            await self._share(scope, _no_body, self._sent)

    async def _answer(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.done[scope["client"][0]] += 1
        scope["state"]["caller"] = self._token

    async def _sent(self, message: Message) -> None:
        if "status" in message:
            self.statuses[message["status"]] += 1

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


async def _no_body() -> Message:
    return {"type": "http.request", "body": b""}


async def test_requests_of_one_address_beyond_its_share_wait_and_no_others_do() -> None:
    """Finding: an address with connections that it keeps had as many requests as the event loop could do."""
    requests = _Requests()
    await requests.send("192.0.2.1", BURST)
    assert requests.waits == []
    await requests.send("192.0.2.1", 10)
    assert requests.waits == [pytest.approx(n / PER_SECOND) for n in range(1, 11)]
    await requests.send("192.0.2.2", BURST)
    assert len(requests.waits) == 10, "another address waits for nothing"
    assert requests.done == {"192.0.2.1": BURST + 10, "192.0.2.2": BURST}, "nobody is refused"


async def test_who_would_wait_too_long_is_told_to_come_again() -> None:
    requests = _Requests()
    await requests.send("192.0.2.1", BURST + int(PER_SECOND * MAX_WAIT) + 50)
    assert requests.statuses[429] == pytest.approx(50, abs=1)
    assert max(requests.waits) <= MAX_WAIT
    requests.now += 60
    before = len(requests.waits)
    await requests.send("192.0.2.1", BURST)
    assert len(requests.waits) == before


async def test_requests_with_a_valid_token_use_less_of_the_share() -> None:
    requests = _Requests(token="valid")
    await requests.send("192.0.2.1", int((BURST - 1) / WITH_TOKEN))
    assert requests.waits == []


async def test_the_addresses_of_a_site_have_one_share() -> None:
    requests = _Requests()
    for n in range(BURST + 5):
        await requests.send(f"2001:db8:1:2::{n:x}", 1)
    assert len(requests.waits) == 5


async def test_the_shares_of_many_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_share, "MAX_ADDRESSES", 20)
    requests = _Requests()
    await requests.send("192.0.2.1", BURST + 5)
    for n in range(100):
        await requests.send(f"198.51.100.{n}", 1)
    assert len(requests._share._paid_until) <= 20
    await requests.send("192.0.2.1", 1)
    assert len(requests.waits) == 6, "who used most is forgotten last"
