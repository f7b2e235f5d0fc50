"""Webhooks and chats over real sockets: signed, bounded, never redirected."""

import asyncio
import re
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.notifications import http
from controller.adapters.notifications import sender as module
from controller.adapters.notifications.sender import NotificationSecrets, NotificationSender
from controller.domain.notifications.addresses import AddressError, check_url, origin_of
from controller.domain.notifications.model import HttpTarget, SinkKind
from controller.domain.notifications.retry import Fault, Outcome
from tests.support.certs import Certs
from tests.support.http_receiver import HttpReceiver, ReceivedRequest, http_receiver, status, tls_listener
from tests.support.notifications import delivery, sink
from tests.support.project_tree import ROOT

KEY = "whsec_c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXMgaGVyZSE="


def _sender(tmp_path: Path, **secrets: str) -> NotificationSender:
    files = {}
    for name, text in {"key": KEY, **secrets}.items():
        files[name] = tmp_path / name
        files[name].write_text(text + "\n")
        files[name].chmod(0o600)
    return NotificationSender(NotificationSecrets(files, {}), time.time)


async def _send(sender: NotificationSender, receiver: HttpReceiver, **changes: Any) -> Outcome:
    return await sender.send(sink(http=HttpTarget(url=receiver.url, secret="key")), delivery(**changes), 3)


async def test_a_receiver_verifies_it_as_the_documents_say(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "notifications.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    documented: dict[str, Any] = {}
    exec(code, documented)
    is_genuine = documented["is_genuine"]
    async with http_receiver() as receiver:
        assert (await _send(_sender(tmp_path), receiver)).fault is None
        (got,) = receiver.got
    headers = {name.title(): value for name, value in got.headers.items()}
    assert is_genuine(headers, got.body, KEY)
    assert not is_genuine(headers, got.body + b" ", KEY)
    assert not is_genuine(headers, got.body, "whsec_AAAA")
    assert not is_genuine({**headers, "Webhook-Id": "another"}, got.body, KEY)
    for junk in ("1700000000", "", "x", "\u0661", "1e9", "9" * 5000):
        assert not is_genuine({**headers, "Webhook-Timestamp": junk}, got.body, KEY)
    for junk in ("", "v1", "v1,\u00e9", "v1,AAAA v2,"):
        assert not is_genuine({**headers, "Webhook-Signature": junk}, got.body, KEY)
    assert not is_genuine({}, got.body, KEY)
    assert (got.json["id"], got.key, got.json["missed"]) == ("k" * 32, "k" * 32, 3)
    assert (got.json["device"], got.json["facts"]) == ("pump-7", {"level": "isolated"})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("302 Found\r\nLocation: http://169.254.169.254/", Fault.SINK),
        ("400 Bad Request", Fault.MESSAGE),
        ("401 Unauthorized", Fault.SINK),
        ("413 Too Large", Fault.MESSAGE),
        ("503 Service Unavailable", Fault.SINK),
        ("202 Accepted", None),
    ],
)
async def test_a_status_says_whom_it_concerns(tmp_path: Path, line: str, fault: Fault | None) -> None:
    async with http_receiver() as receiver:
        receiver.answer = status(line)
        outcome = await _send(_sender(tmp_path), receiver)
        assert (outcome.fault, len(receiver.got)) == (fault, 1)
        assert "169" not in outcome.trouble


async def test_a_receiver_may_ask_for_a_pause(tmp_path: Path) -> None:
    async with http_receiver() as receiver:
        receiver.answer = status("429 Too Many Requests", "Retry-After: 120")
        assert (await _send(_sender(tmp_path), receiver)).retry_after == 120.0
        receiver.answer = status("429 Too Many Requests", "Retry-After: " + "9" * 4000)
        assert (await _send(_sender(tmp_path), receiver)).retry_after == 0.0


async def _endless_body(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()


async def _endless_head(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 65536 + b"\r\n")
        await writer.drain()


async def _silence(_request: ReceivedRequest, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _dripping(_request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def test_answers_that_do_not_end_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SECONDS", 0.5)
    sender = _sender(tmp_path)
    async with http_receiver() as receiver:
        receiver.answer = _endless_body
        assert (await _send(sender, receiver)).fault is None, "the status is all that counts"
        for answer in (_endless_head, _silence, _dripping):
            receiver.answer = answer
            assert (await _send(sender, receiver)).fault is Fault.SINK


async def test_only_a_verified_certificate_is_sent_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certs = Certs(tmp_path / "certs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    with tls_listener(context) as (port, heard):
        refused = await _send(_sender(tmp_path), HttpReceiver(port, "https"))
        assert (refused.fault, heard) == (Fault.SINK, [])
        assert "certificate is not trusted" in refused.trouble
    async with http_receiver(context) as receiver:
        monkeypatch.setenv("SSL_CERT_FILE", str(certs.ca))
        assert (await _send(_sender(tmp_path), receiver)).fault is None


async def test_password_managers_that_hang_hold_no_threads_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, calls = threading.Event(), []

    def hangs(_source: object, what: str) -> str:
        calls.append(what)
        goes_on.wait()
        return "secret"

    monkeypatch.setattr(module, "read_line", hangs)
    names = [f"s{number}" for number in range(40)]
    secrets = NotificationSecrets(dict.fromkeys(names, tmp_path), {})
    async with asyncio.TaskGroup() as group:
        reads = [group.create_task(secrets.get(name)) for name in [*names, *names]]
        assert await asyncio.to_thread(lambda: "at once") == "at once"
        goes_on.set()
    assert {read.result() for read in reads} == {"secret"}
    assert len(calls) == len(names), "one program for each secret"
    secrets.close()


async def test_a_secret_is_in_no_trouble_and_is_read_again_after_a_failure(tmp_path: Path) -> None:
    async with http_receiver() as receiver:
        sender = _sender(tmp_path, address="http://198.51.100.1/T0KEN")
        chat = sink(kind=SinkKind.SLACK, http=HttpTarget(url_secret="address"))
        refused = await sender.send(chat, delivery(), 0)
        assert refused.fault is Fault.SINK
        assert "T0KEN" not in refused.trouble
        (tmp_path / "address").write_text(receiver.url)
        assert (await sender.send(chat, delivery(), 0)).fault is None
        assert "webhook-signature" not in receiver.got[0].headers
        missing = await sender.send(sink(http=HttpTarget(url=receiver.url, secret="none")), delivery(), 0)
        assert "[notifications.secrets]" in missing.trouble


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "http://10.0.0.1/", "http://example.org/",
        "http://127.0.0.1.example.org/", "http://localhost.example.org/", "http://0/", "http://2130706433/",
        "https://user:pass@example.org/", "https://user@example.org/", "https://example.org/#x", "ftp://example.org/",
        "file:///etc/passwd", "https://", "https:///x", "https://example.org:0/", "https://example.org:99999/",
        "https://exa mple.org/", "https://example.org/\r\nX: y", "https://example.org/\u202e", "https://" + "a" * 3000,
    ],
)  # fmt: skip
def test_nothing_is_sent_to_other_addresses(url: str) -> None:
    with pytest.raises(AddressError):
        check_url(url)


def test_listings_have_the_server_only() -> None:
    assert origin_of("https://hooks.example.org:8443/services/T0/B0/XXXX?key=1") == "https://hooks.example.org:8443"
    assert check_url("http://[::1]:8080/hook") == "http://[::1]:8080/hook"
