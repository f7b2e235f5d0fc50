"""Clients who forge what controllers say to each other, or hide a second request in one that is forwarded."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.adapters.http_peers import HttpPeers
from controller.api.middleware import MAX_BODY, MAX_PUBLIC_BODY
from controller.domain.audit_kinds import AuditKind
from controller.domain.forwarded_origin import Origin, RequestFacts, seal
from controller.ports.peers import PeerRequest, UnsendableRequestError
from tests.support.api import TOKEN, Api
from tests.support.api import api as open_api
from tests.support.peers import KEY, Pair, pair

HEADER = "X-Cordon-Forwarded"
PATH = "/api/v1/waivers"


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    async with open_api(tmp_path / "c.db") as api, pair(api) as made:
        yield made


def _sealed(api: Api, *, key: bytes = KEY, target: bytes = b"/api/v1/waivers", address: str = "198.51.100.1") -> str:
    facts = RequestFacts("POST", target, b"cordon", f"Bearer {TOKEN}".encode(), b"")
    return seal(Origin(address, "https", api.harness.clock.now(), "n"), facts, key)


@pytest.mark.parametrize("place", ["leader", "follower"])
async def test_a_forged_origin_is_refused_by_every_controller(two: Pair, place: str) -> None:
    client = two.leader if place == "leader" else two.follower
    valid = _sealed(two.api)
    forged = ["198.51.100.1", "", valid[:-1] + "0", _sealed(two.api, key=b"x" * 32), _sealed(two.api, target=b"/other")]
    for text in forged:
        answer = await client.post(PATH, json={}, headers={HEADER: text})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "forwarding_refused"), text
    twice = [*client.headers.items(), (HEADER, valid), (HEADER, "x")]
    assert (await client.post(PATH, json={}, headers=twice)).status_code == 400
    assert two.peers.sent == []
    assert await two.api.harness.store.audit(kind=AuditKind.API_ACCESS_REFUSED) == []


async def test_a_seal_that_was_seen_counts_once(two: Pair) -> None:
    headers = {HEADER: _sealed(two.api)}
    assert (await two.leader.post(PATH, json={}, headers=headers)).status_code == 422  # taken: the body is none
    assert (await two.leader.post(PATH, json={}, headers=headers)).status_code == 400


async def test_proxies_of_the_client_and_credentials_of_the_hop_are_not_passed_on(two: Pair) -> None:
    names = ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Proxy-Authorization", "Upgrade", "TE", "Expect")
    await two.follower.post(PATH, json={}, headers=dict.fromkeys(names, "198.51.100.1"))
    (sent,) = two.peers.sent
    passed = {name.decode().lower() for name, _ in sent.headers}
    assert not passed & {name.lower() for name in names}
    assert {"host", "authorization", "content-type", HEADER.lower()} <= passed


@pytest.mark.parametrize("named", ["Authorization", "close, Cookie", "X-Cordon-Forwarded", "keep-alive, Host"])
async def test_a_header_is_not_dropped_because_connection_names_it(two: Pair, named: str) -> None:
    answer = await two.follower.post(PATH, json={}, headers={"Connection": named})
    assert answer.status_code == 400
    assert two.peers.sent == []


async def test_a_second_host_is_refused(two: Pair) -> None:
    headers = [*two.follower.headers.items(), ("Host", "cordon"), ("Host", "other")]
    assert (await two.follower.post(PATH, json={}, headers=headers)).status_code == 400
    assert two.peers.sent == []


@pytest.mark.parametrize(
    "target", ["//evil.example/x", "/api/v1/waivers/..%2f..%2fme", "/api/v1/waivers/%0d%0aX:%20y", "/a?b=//c@d:1/"]
)
async def test_a_path_never_leads_to_another_host(two: Pair, target: str) -> None:
    await two.follower.post(f"http://cordon{target}")
    assert all(one.target.startswith(b"/") for one in two.peers.sent)
    assert {value for one in two.peers.sent for name, value in one.headers if name == b"host"} <= {b"cordon"}


async def test_bodies_are_bounded_before_anything_is_forwarded(two: Pair) -> None:
    large = b'"' + b"x" * MAX_BODY + b'"'
    assert (await two.follower.post(PATH, content=large)).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 1024 + 1):
            yield b"x" * 1024

    assert (await two.follower.post(PATH, content=chunks())).status_code == 413
    nobody = {"Authorization": "Bearer none"}
    public = b'"' + b"x" * MAX_PUBLIC_BODY + b'"'
    assert (await two.follower.post("/api/v1/sessions", content=public, headers=nobody)).status_code == 413
    twice = await two.follower.post(PATH, content=b'{"rule": "a", "rule": "b"}')
    assert twice.status_code == 422
    assert two.peers.sent == []


async def test_what_goes_over_the_wire_is_one_request_with_its_length() -> None:
    """Whatever the client said of its body, the leader gets one length, and no second request."""
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not got.endswith(b"GET /smuggled"):
            got.extend(await reader.read(65536))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    peers = HttpPeers.over_tls(ssl.create_default_context())
    body = b"0\r\n\r\nGET /smuggled"
    request = PeerRequest("POST", b"/x", [(b"host", b"cordon"), (b"accept", b"a")], body)
    async with server, peers.send(f"http://127.0.0.1:{port}", request) as answer:
        assert answer.status == 204
    await peers.close()
    head, _, rest = bytes(got).partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /x http/1.1"
    assert [one for one in lines if one.startswith((b"content-length", b"transfer-encoding", b"host"))] == [
        b"host: cordon",
        b"content-length: %d" % len(body),
    ]
    assert rest == body


@pytest.mark.parametrize("target", [b"/a b", b"/a\r\nX: y", b"/\xff", b"http://other/", b"/a/../b"])
async def test_a_target_that_is_none_is_not_sent(target: bytes) -> None:
    peers = HttpPeers.over_tls(ssl.create_default_context())
    with pytest.raises(UnsendableRequestError):
        async with peers.send("http://127.0.0.1:1", PeerRequest("GET", target, [(b"host", b"c")], b"")):
            pass
    await peers.close()
