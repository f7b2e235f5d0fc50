"""Addresses that a stranger chooses: in headers, in certificates, and of listeners without TLS."""

import asyncio
import contextlib
import socket
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from controller.adapters.http_server.admission import ConnectionLimits
from controller.api.auth import MAX_FAILURES, FailedAttempts
from controller.api.downloads import BandwidthLimiter, DownloadThrottle
from controller.api.middleware import MAX_BODIES, BodyMemory, ForwardedHeaders, RequestLimitMiddleware
from controller.app.servers import HttpListener, ListenerSettings
from controller.service.settings.rollouts import UpdateSettings
from controller.service.settings.settings import ApiSettings
from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.collectors.crypto.fetch import FetchError, fetch, fetch_public, is_own, may_be_asked
from device_agent.host.system import System
from tests.support.http_listener import small_app
from tests.support.pki import NOW, Authority
from tests.support.waiting import eventually

PROXIES = (ip_network("192.0.2.1/32"), ip_network("10.0.0.0/8"))
PUBLIC = "93.184.216.34"


async def _seen_as(client: str, headers: list[tuple[str, str]], proxies: Any = PROXIES) -> str:
    """Address and scheme that the application sees."""
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(f"{scope['client'][0]} {scope['scheme']}")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    transport = httpx.ASGITransport(ForwardedHeaders(app, proxies), client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://cordon") as api:
        await api.get("/", headers=headers)
    return seen[0]


FORWARDED = "x-forwarded-for"


@pytest.mark.parametrize(
    ("client", "headers", "expected"),
    [
        ("127.0.0.1", [(FORWARDED, "203.0.113.9"), ("x-forwarded-proto", "https")], "127.0.0.1 http"),
        ("203.0.113.5", [(FORWARDED, "127.0.0.1"), ("x-forwarded-proto", "https")], "203.0.113.5 http"),
        ("192.0.2.1", [(FORWARDED, "203.0.113.9"), ("x-forwarded-proto", "https")], "203.0.113.9 https"),
        ("192.0.2.1", [(FORWARDED, "127.0.0.1, 203.0.113.9")], "203.0.113.9 http"),
        ("192.0.2.1", [(FORWARDED, "127.0.0.1"), (FORWARDED, "203.0.113.9, 10.1.1.1")], "203.0.113.9 http"),
        ("192.0.2.1", [(FORWARDED, "evil host")], "192.0.2.1 http"),
        ("192.0.2.1", [(FORWARDED, "203.0.113.9, x" + "y" * 5000)], "192.0.2.1 http"),
        ("192.0.2.1", [(FORWARDED, "10.1.1.1, 10.1.1.2")], "192.0.2.1 http"),
        ("192.0.2.1", [("x-forwarded-proto", "https, http")], "192.0.2.1 http"),
        ("192.0.2.1", [("x-forwarded-proto", "gopher")], "192.0.2.1 http"),
        ("192.0.2.1", [("forwarded", "for=127.0.0.1"), ("x-real-ip", "127.0.0.1")], "192.0.2.1 http"),
    ],
)
async def test_forwarded_addresses_are_believed_of_configured_proxies_only(
    client: str, headers: list[tuple[str, str]], expected: str
) -> None:
    assert await _seen_as(client, headers) == expected
    assert await _seen_as(client, headers, ()) == f"{client} http", "without proxies the headers mean nothing"


async def test_a_listener_as_it_runs_believes_no_header_of_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding: uvicorn believes `X-Forwarded-For` of loopback by default, or of what an environment variable names."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    app = ForwardedHeaders(small_app(), ())
    listener = HttpListener(ListenerSettings("test", "api.listen", "127.0.0.1:0", app, ConnectionLimits(16, 16), 1, {}))
    async with asyncio.TaskGroup() as group:
        group.create_task(listener.run())
        async with httpx.AsyncClient(base_url=listener.url, headers={FORWARDED: "203.0.113.9"}) as client:
            seen = await eventually(lambda: _answer(client), "the listener answers")
        listener.close()
    assert seen == "0 bytes from 127.0.0.1"


async def _answer(client: httpx.AsyncClient) -> str:
    try:
        return (await client.get("/")).text
    except httpx.ConnectError:
        return ""


@pytest.mark.parametrize("listen", ["0.0.0.0:8480", "[::]:8480", "10.0.0.1:8480", "cordon.example:8480", "[fe80::1]:1"])
def test_plain_http_beyond_loopback_is_refused_unless_allowed_by_name(listen: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="unsafe_plain_http"):
        ApiSettings(listen=listen)
    assert ApiSettings(listen=listen, unsafe_plain_http=True).listen == listen
    assert ApiSettings(listen=listen, certificate=Path("c"), key=Path("k")).listen == listen
    with pytest.raises(ValidationError, match="certificate and key"):
        UpdateSettings(folder=tmp_path, listen=listen)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.8.8.8:1", "[::1]:8480", "localhost:8480"])
def test_loopback_needs_no_certificate(listen: str, tmp_path: Path) -> None:
    assert ApiSettings(listen=listen).listen == listen
    assert UpdateSettings(folder=tmp_path, listen=listen).listen == listen


async def test_all_bodies_together_are_bounded() -> None:
    """The limit of one body says nothing about the sum: 6,800 connections held 2 GiB."""
    memory = BodyMemory(total=100_000, per_address=60_000)

    async def send(address: str, size: int) -> int:
        transport = httpx.ASGITransport(RequestLimitMiddleware(small_app(), memory), client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://cordon") as api:
            return (await api.post("/", content=b"x" * size)).status_code

    assert await send("192.0.2.9", 50_000) == 200
    assert memory.take("192.0.2.1", 55_000)
    assert await send("192.0.2.1", 10_000) == 503, "the address has its share"
    assert await send("192.0.2.2", 40_000) == 200
    assert await send("192.0.2.2", 50_000) == 503, "all bodies together"
    memory.release("192.0.2.1", 55_000)
    assert await send("192.0.2.1", 55_000) == 200
    assert memory.held == 0
    assert MAX_BODIES <= 64 * 1024 * 1024


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        # 6to4, Teredo, IPv4-compatible, site-local, local NAT64, SRv6, documentation, ORCHID, discard, ISATAP, AS112:
        "2002:5db8:d822::1", "2001:0:5db8:d822::a247:27dd", "::5db8:d822", "fec0::1", "64:ff9b:1::5db8:d822",
        "64:ff9b::c000:201", "5f00::1", "2001:db8::1", "3fff::1", "2001:10::1", "2001:20::1", "2001:2::1", "100::1",
        "2606:2800::5efe:a01:203", "2606:2800::200:5efe:7f00:1", "3ffe::1", "2620:4f:8000::1", "4000::1", "fc00::1",
        "192.0.0.8", "192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.175.48.1",
        "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "240.0.0.1", "0.1.2.3", "172.31.255.255",
    ],
)  # fmt: skip
def test_no_certificate_has_the_agent_ask_an_inner_address(address: str) -> None:
    assert not may_be_asked(address, ())
    assert may_be_asked(PUBLIC, ())
    assert may_be_asked("2606:2800:220:1::1", ())
    assert may_be_asked("10.1.2.3", (ip_network("10.1.0.0/16"),))
    assert not may_be_asked("10.2.2.3", (ip_network("10.1.0.0/16"),))


@pytest.mark.parametrize("address", ["93.184.216.34", "64:ff9b::5db8:d822", "2606:2800:220:1::5efe:5db8:d822"])
def test_a_public_address_is_asked_whichever_form_it_has(address: str) -> None:
    assert may_be_asked(address, ())


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_the_machines_own_addresses_are_not_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services of the machine itself believe what comes from it, also by its public address."""
    own = "93.184.216.34" if address.startswith("64:") else address

    class Socket(socket.socket):
        def connect(self, address: Any) -> None:
            assert address[0] == own

        def getsockname(self) -> Any:
            return (own, 40000)

    assert may_be_asked(address, ())
    assert is_own(ip_address("127.0.0.1"))
    monkeypatch.setattr(socket, "socket", Socket)
    assert not may_be_asked(address, ())
    assert may_be_asked(address, (ip_network(f"{own}/{ip_address(own).max_prefixlen}"),))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["list", "public"])
def test_a_redirect_leads_nowhere(status: int, method: str) -> None:
    requests: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(status)
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/inner")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_arguments: Any) -> None:
            """Logs nothing."""

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server, contextlib.ExitStack() as stack:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        url, networks = f"http://127.0.0.1:{server.server_port}/", [ip_network("127.0.0.0/8")]
        public = partial(fetch_public, body=b"", headers={}, networks=networks)
        with pytest.raises(FetchError, match=f"answered {status}"):
            (fetch if method == "list" else public)(url, max_bytes=10)
    assert requests == ["/"]


@pytest.mark.parametrize("answers", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["169.254.169.254"]])
def test_names_are_checked_by_what_they_resolve_to(monkeypatch: pytest.MonkeyPatch, answers: list[str]) -> None:
    asked: list[str] = []

    def resolve(*_arguments: object, **_named: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in answers]

    def connect(address: tuple[str, int], **_named: object) -> None:
        asked.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(FetchError, match="not public"):
        fetch_public("http://ocsp.example/", max_bytes=10, body=b"", headers={})
    assert asked == []
    answers[:] = [PUBLIC]
    with pytest.raises(FetchError, match="no answer"):
        fetch_public("http://ocsp.example/", max_bytes=10, body=b"", headers={})
    assert asked == [PUBLIC], "the checked address, which is not resolved again"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/", "http://", "http://u@x/", "http://[::1", "gopher://x"]
)
def test_other_urls_are_not_fetched(url: str) -> None:
    with pytest.raises(FetchError, match="URL"):
        fetch_public(url, max_bytes=10, body=b"", headers={})


def test_a_certificate_in_a_scanned_folder_sends_the_agent_nowhere(tmp_path: Path) -> None:
    """Finding: whoever put a certificate and a self-made authority beside it had the agent POST to any address."""
    requests: list[str] = []

    class Inner(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Logs nothing."""

    mine, trusted = Authority("mine"), Authority("trusted")
    with HTTPServer(("127.0.0.1", 0), Inner) as server, contextlib.ExitStack() as stack:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        url = f"http://127.0.0.1:{server.server_port}/admin?delete=all"
        certs = tmp_path / "certs"
        certs.mkdir()
        (certs / "mine.pem").write_bytes(mine.pem)
        (certs / "x.pem").write_bytes(mine.issue("x", responder=url).pem)
        (certs / "y.pem").write_bytes(trusted.issue("y", responder=url).pem)
        (tmp_path / "store.pem").write_bytes(trusted.pem)
        networks = [ip_network("127.0.0.0/8")]
        for chosen in ((), networks):
            options = CertificateOptions(
                paths=[Path("/certs")], trust_store=Path("/store.pem"), ocsp=True, ocsp_networks=chosen
            )
            collect = CertificateCollector(options, NOW.timestamp)
            section: Any = collect(System(tmp_path, is_root_user=True))
            reasons = {entry["path"]: entry["reason"] for entry in section["entries"]}
            assert "chains to the trust store only" in reasons["/certs/x.pem"]
            assert ("which is not public" in reasons["/certs/y.pem"]) == (not chosen)
    assert requests == ["/admin?delete=all"], "only the chain to the trust store, and only where the network is allowed"


async def test_all_addresses_of_an_ipv6_host_are_one_client() -> None:
    """Finding: connections counted so; wrong tokens, bodies and downloads for each of its 2^64 addresses."""
    host, neighbour = [f"2001:db8:1:2::{n:x}" for n in range(1, MAX_FAILURES + 2)], "2001:db8:1:3::1"
    failures = FailedAttempts(lambda: 0.0)
    assert [failures.record(each) > 0 for each in host] == [False] * MAX_FAILURES + [True]
    assert failures.record(neighbour) == 0
    memory = BodyMemory(total=100, per_address=60)
    assert memory.take(host[0], 60)
    assert not memory.take(host[1], 1)
    assert memory.take(neighbour, 1)
    memory.release(host[2], 60)
    assert memory.take(host[1], 60)

    served: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        served.append(scope["client"][0])
        for address in (host[1], neighbour):
            if len(served) == 1:
                await downloads(_download(address), _nothing, refused)

    async def refused(message: Message) -> None:
        statuses.append(message.get("status"))

    statuses: list[object] = []
    downloads = DownloadThrottle(app, bandwidth=BandwidthLimiter(0), most=9, most_per_address=1)
    await downloads(_download(host[0]), _nothing, refused)
    assert served == [host[0], neighbour]
    assert statuses == [503, None]


def _download(address: str) -> Scope:
    return {"type": "http", "method": "GET", "path": "/", "headers": [], "client": (address, 1)}


async def _nothing() -> Message:
    await asyncio.Event().wait()
    return {}
