"""Idle, slow and many clients at an HTTP listener: each has limits, and nobody else is kept out."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from fastapi import FastAPI

from controller.adapters.http_server.admission import ConnectionLimits
from controller.adapters.http_server.protocol import (
    BODY_SECONDS,
    HANDSHAKE_SECONDS,
    HEADER_SECONDS,
    MIN_RATE,
    RATE_WINDOW,
    BoundedProtocol,
    Connection,
    Phase,
)
from controller.adapters.http_server.server import NEW_PER_SECOND, BoundedServer
from tests.support.certs import Certs
from tests.support.http_listener import LARGE, Loop, RunningListener, is_closed, run_in, running_listener, small_app
from tests.support.waiting import eventually

FEW = ConnectionLimits(total=8, per_address=4)
NO_LINGER = b"\1\0\0\0\0\0\0\0"  # closes with a reset
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    made: Loop = request.param
    return made


def _slow(sent: bytes, phase: Phase, seconds: float) -> Callable[[RunningListener], Awaitable[None]]:
    """A client that sends this and no more: it stays for the phase's time and not longer."""

    async def scenario(running: RunningListener) -> None:
        client = await running.connect(sent=sent)
        with client:
            await eventually(lambda: [each.phase for each in running.server.watched()] == [phase], phase.value)
            running.end_overdue(0)
            running.end_overdue(seconds - 1)
            assert running.server.open == 1
            running.end_overdue(seconds + 1)
            assert running.server.open == 0
            assert await is_closed(client)

    return scenario


@pytest.mark.parametrize(
    ("sent", "phase", "seconds"),
    [
        (b"", Phase.HEADER, HEADER_SECONDS),
        (b"GET / HTTP/1.1\r\nX-A: ", Phase.HEADER, HEADER_SECONDS),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT", Phase.HEADER, HEADER_SECONDS),
        (POST, Phase.BODY, BODY_SECONDS),
        (POST.replace(b"POST / ", b"POST /unread "), Phase.BODY, BODY_SECONDS),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", Phase.BODY, BODY_SECONDS),
        (POST.replace(b"{", b"").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), Phase.BODY, BODY_SECONDS),
    ],
    ids=["nothing", "half a header", "half a second header", "half a body", "refused body", "chunks", "expects"],
)
def test_a_request_that_never_ends_is_ended(loop: Loop, sent: bytes, phase: Phase, seconds: float) -> None:
    async def scenario() -> None:
        async with running_listener(FEW) as running:
            await _slow(sent, phase, seconds)(running)
            assert b"0 bytes" in await running.fetch()

    run_in(loop, scenario)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX-A: ", POST], ids=["header", "body"])
def test_sending_a_byte_now_and_then_buys_no_time(loop: Loop, start: bytes) -> None:
    async def scenario() -> None:
        async with running_listener(FEW) as running:
            client = await running.connect(sent=start)
            with client:
                await eventually(lambda: running.server.open == 1, "the connection")
                await asyncio.sleep(0)
                running.end_overdue(0)
                for second in range(int(BODY_SECONDS) + 2):
                    if running.server.open:
                        await asyncio.get_running_loop().sock_sendall(client, b"a")
                    await asyncio.sleep(0)
                    running.end_overdue(second)
                assert running.server.open == 0

    run_in(loop, scenario)


def test_a_tls_handshake_that_never_ends_is_ended(loop: Loop, tmp_path: Path) -> None:
    certs = Certs(tmp_path)
    tls = ssl.create_default_context(cafile=certs.ca)
    files = {"ssl_certfile": str(certs.server_cert), "ssl_keyfile": str(certs.server_key)}

    async def scenario() -> None:
        async with running_listener(FEW, **files) as running:
            silent, garbled = await running.connect(), await running.connect(sent=b"\x16\x03\x01\x02")
            with silent, garbled:
                await eventually(lambda: running.server.open == 2, "both connections")
                assert {each.phase for each in running.server.watched()} == {Phase.HANDSHAKE}
                running.end_overdue(HANDSHAKE_SECONDS - 1)
                assert running.server.open == 2
                assert b"0 bytes" in await running.fetch(tls=tls)
                running.end_overdue(HANDSHAKE_SECONDS + 1)
                assert await is_closed(silent)
                assert await is_closed(garbled)
            wrong = await running.connect(sent=b"GET / HTTP/1.1\r\n\r\n")
            with wrong:
                assert await is_closed(wrong)
            await eventually(lambda: running.server.open == 0, "no connection is left")

    run_in(loop, scenario)


def test_a_client_that_takes_nothing_is_ended_and_a_slow_one_is_not(loop: Loop) -> None:
    async def scenario() -> None:
        async with running_listener(FEW) as running:
            request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
            still = await running.connect("127.0.0.1", request, receive_buffer=32_768)
            slow = await running.connect("127.0.0.2", request, receive_buffer=32_768)
            with still, slow:
                both = running.server.watched
                await eventually(lambda: len([each for each in both() if each.has_unsent]) == 2, "both wait")
                (mine,) = [each for each in both() if each.address == "127.0.0.2"]
                for look in range(4):  # the first one or two may still see the buffers fill
                    running.end_overdue(look * (RATE_WINDOW + 1))
                    assert mine in both()
                    wanted = mine.acknowledged + 4 * MIN_RATE * RATE_WINDOW
                    while mine.acknowledged < wanted:
                        assert await asyncio.get_running_loop().sock_recv(slow, 65536)
                assert [each.address for each in both()] == ["127.0.0.2"]
                assert await is_closed(still)

    run_in(loop, scenario)


def test_one_address_has_its_share_and_the_others_theirs(loop: Loop) -> None:
    async def scenario() -> None:
        async with running_listener(FEW) as running:
            clients = [await running.connect("127.0.0.2") for _ in range(20)]
            await eventually(lambda: running.server.open == FEW.per_address, "the share of the address")
            assert await running.fetch("127.0.0.2") == b""
            assert b"0 bytes from 127.0.0.3" in await running.fetch("127.0.0.3")
            for client in clients:
                client.close()
            await eventually(lambda: running.server.open == 0, "all are closed")
            assert b"0 bytes from 127.0.0.2" in await running.fetch("127.0.0.2")

    run_in(loop, scenario)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nX-A: ", POST], ids=["idle", "header", "body"])
def test_a_full_listener_serves_who_sends_a_request(loop: Loop, sent: bytes) -> None:
    """Finding: 64 idle connections kept every broker from its revocation lists, as long as they were held."""

    async def scenario() -> None:
        async with running_listener(FEW) as running:
            clients = [await running.connect(f"127.0.0.{10 + n // 4}", sent) for n in range(40)]
            await eventually(lambda: running.server.open == FEW.total, "the listener is full")
            for _ in range(5):
                assert b"0 bytes from 127.0.0.1" in await running.fetch()
            assert running.server.open <= FEW.total
            for client in clients:
                client.close()

    run_in(loop, scenario)


def test_requests_under_way_are_never_displaced(loop: Loop) -> None:
    async def scenario() -> None:
        async with running_listener(ConnectionLimits(2, 2)) as running:
            request = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            clients = [await running.connect(sent=request, receive_buffer=4096) for _ in range(2)]
            await eventually(lambda: all(each.has_unsent for each in running.server.watched()), "both are answered")
            assert await running.fetch("127.0.0.9") == b""
            for client in clients:
                with client:
                    received = 0
                    while piece := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
                        received += len(piece)
                    assert received > LARGE

    run_in(loop, scenario)


def test_an_upgrade_to_another_protocol_does_not_escape(loop: Loop) -> None:
    async def scenario() -> None:
        async with running_listener(FEW) as running:
            upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            client = await running.connect(sent=upgrade)
            with client:
                answer = await asyncio.get_running_loop().sock_recv(client, 65536)
                assert answer.startswith(b"HTTP/1.1 200")
                running.end_overdue(0)
                running.end_overdue(HEADER_SECONDS + 1)
                assert await is_closed(client)

    run_in(loop, scenario)


def test_connections_that_come_and_go_leave_nothing_behind(loop: Loop, tmp_path: Path) -> None:
    certs = Certs(tmp_path)
    files = {"ssl_certfile": str(certs.server_cert), "ssl_keyfile": str(certs.server_key)}

    async def scenario() -> None:
        async with running_listener(ConnectionLimits(64, 64), **files) as running:
            for n in range(60):
                client = await running.connect(sent=b"\x16\x03\x01" if n % 2 else b"")
                if n % 3 == 0:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                client.close()
            await eventually(lambda: running.server.open == 0, "no connection is left")

    run_in(loop, scenario)


SENT = {
    "half": (b"\x16\x03\x01\x02", False),
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", False),
    "idle": (b"", True),
    "request": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
    "half a body": (POST, True),  # FastAPI's exception for it refers to itself
    "unread": (b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", True),
}


def _kept() -> list[object]:
    """What stays of connections while nothing collects garbage."""
    return [each for each in gc.get_objects() if isinstance(each, Connection | BoundedProtocol | ssl.SSLObject)]


@pytest.mark.parametrize("end", ["close", "reset", "server"])
@pytest.mark.parametrize("kind", SENT)
def test_the_memory_of_a_connection_goes_with_it(tmp_path: Path, kind: str, end: str) -> None:
    """Finding: closed connections stayed until a garbage collection, which is rare: 513 MiB under a flood."""
    certs = Certs(tmp_path)
    files = {"ssl_certfile": str(certs.server_cert), "ssl_keyfile": str(certs.server_key)}
    tls = ssl.create_default_context(cafile=certs.ca)
    sent, is_tls = SENT[kind]
    app = FastAPI()
    app.post("/")(_with_a_body)
    app.mount("/", small_app())

    async def scenario() -> None:
        async with running_listener(ConnectionLimits(64, 64), app, **files) as running:
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=tls if is_tls else None)
                writer.write(sent)
                await eventually(lambda: running.server.open == (kind != "garbage"), "the connection")
                if end == "server":
                    running.end_overdue(0)
                    running.end_overdue(BODY_SECONDS + RATE_WINDOW)
                    running.end_overdue(2 * (BODY_SECONDS + RATE_WINDOW))
                elif end == "reset":
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                    writer.transport.abort()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                del writer, _
                await eventually(lambda: running.server.open == 0, "no connection is left")
            await eventually(lambda: not [each for each in _kept() if _is_of_server(each)], "nothing is kept")

    gc.collect()
    gc.disable()
    try:
        run_in(uvloop.new_event_loop, scenario)
    finally:
        gc.enable()


async def _with_a_body(given: dict[str, str]) -> dict[str, str]:
    return given


def _is_of_server(kept: object) -> bool:
    return not isinstance(kept, ssl.SSLObject) or kept.server_side


def test_an_address_that_comes_and_goes_keeps_no_other_out(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding: one address used up the new connections of each second by opening and closing."""
    monkeypatch.setattr(BoundedServer, "on_tick", _never_a_new_second)

    async def scenario() -> None:
        async with running_listener(ConnectionLimits(384, 64)) as running:
            for _ in range(NEW_PER_SECOND + 20):
                (await running.connect("127.0.0.2")).close()
            assert await running.fetch("127.0.0.2") == b"", "its own share is used up"
            for address in ("127.0.0.3", "127.0.0.9"):
                assert b"0 bytes" in await running.fetch(address)

    run_in(loop, scenario)


async def _never_a_new_second(server: BoundedServer, _counter: int) -> bool:
    return server.should_exit
