"""Servers that hold a request: whatever they send, and however slowly, the answer has a time limit in all."""

import contextlib
import ipaddress
import math
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from unittest import mock

import pytest
import urllib3.util.connection
from tuf.api.exceptions import SlowRetrievalError

from controller.adapters.x509 import foreign
from controller.ports.certificates import AuthorityError
from device_agent.collectors.crypto import fetch
from device_agent.updates import download, health
from schemas import http_deadline
from schemas.updates import UpdateTarget
from tests.support.identity import DAY, make_authority

pytestmark = pytest.mark.slow

STEP: Final = 0.2  # seconds that a socket waits
PIECES: Final = 300
PAUSE: Final = 0.01  # seconds; the whole answer takes several times as long as it may
ANSWERS: Final = {
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % PIECES, b"0", b""),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n0\r\n", b"0\r\n\r\n"),
    "header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"0", b"\r\nContent-Length: 0\r\n\r\n"),
    "status": (b"HTTP/1.1 200 ", b"O", b"\r\nContent-Length: 0\r\n\r\n"),
    "informational": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
}
TARGET: Final = {"name": "app", "version": "1.0", "kind": "image", "installer": "hook", "classes": ["*"]}


@contextlib.contextmanager
def dribbling(answer: str) -> Iterator[str]:
    """A server that sends one answer piece by piece; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                first, piece, last = ANSWERS[answer]
                client.sendall(first)
                for _ in range(PIECES):
                    if ended.wait(PAUSE):
                        return
                    client.sendall(piece)
                client.sendall(last)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    finally:
        ended.set()
        thread.join()
        listener.close()


def _fetch_public(url: str) -> None:
    fetch.fetch_public(url, max_bytes=9999, body=b"x", headers={}, networks=[ipaddress.ip_network("127.0.0.0/8")])


def _fetch_update(url: str) -> None:
    download.MetadataFetcher(None, 1.0, lambda: math.inf, threading.Event()).open(url, {}).close()


def _check_health(url: str) -> None:
    target = UpdateTarget.model_validate({**TARGET, "health": {"http": url}})
    if text := health.check_health(target, str, STEP):
        raise OSError(text)


ASKERS: Final = {
    "list": lambda url: fetch.fetch(url, max_bytes=9999),
    "public": _fetch_public,
    "external list": foreign._fetch,
    "updates": _fetch_update,
    "health": _check_health,
}


class _Network:
    """Names with many addresses; connecting takes as long as it may. Time passes only here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
        self.passed = 0.0
        self.server = socket.socket()
        self._answers = answers
        silent = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.1.{n}", 80)) for n in range(1, 41)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: silent)
        monkeypatch.setattr(socket, "create_connection", self.connect)
        monkeypatch.setattr(urllib3.util.connection, "create_connection", self.connect)
        monkeypatch.setattr(http_deadline, "time", mock.Mock(monotonic=lambda: self.passed))

    def connect(self, address: tuple[str, int], timeout: float, *_: object, **__: object) -> socket.socket:
        if self._answers:
            self.passed += timeout * http_deadline.ANSWER_TIMEOUTS
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ours = socket.socket()
                ours.connect(listener.getsockname())
                self.server.close()
                self.server, _ = listener.accept()
            ours.settimeout(timeout)
            self.server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return ours
        is_name = not address[0].startswith("127.0.1.")
        self.passed += timeout * (len(socket.getaddrinfo(*address)) if is_name else 1)
        raise TimeoutError


@pytest.mark.parametrize("ask", ASKERS.values(), ids=ASKERS)
def test_a_name_with_many_silent_addresses_holds_nobody(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], None]
) -> None:
    """Finding: each address had the time limit for itself, and a name has as many as its owner likes."""
    network = _Network(monkeypatch, answers=False)
    with pytest.raises((fetch.FetchError, AuthorityError, SlowRetrievalError, OSError)):
        ask("http://localhost/x")
    network.server.close()
    assert 0 < network.passed <= 2 * foreign.TIMEOUT


@pytest.mark.parametrize("name", ["list", "public", "external list", "health"])
def test_what_connecting_took_is_missing_for_the_answer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    network = _Network(monkeypatch, answers=True)
    with pytest.raises((fetch.FetchError, AuthorityError, OSError), match=r"(?i)no whole answer|TimeoutError"):
        ASKERS[name]("http://localhost/x")
    network.server.close()


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("ask", [lambda url: fetch.fetch(url, max_bytes=9999), _fetch_public], ids=["list", "public"])
def test_no_server_holds_a_collector(monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], None], answer: str) -> None:
    """Finding: the time limit held for the body only."""
    monkeypatch.setattr(fetch, "SECONDS", STEP)
    with dribbling(answer) as url, pytest.raises(fetch.FetchError, match="no answer"):
        ask(url)


@pytest.mark.parametrize("answer", ["header", "status", "informational"])
def test_no_update_server_holds_the_thread_of_updates(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Finding: the rate was measured from the body on."""
    monkeypatch.setattr(download, "SOCKET_SECONDS", STEP)
    fetcher = download.MetadataFetcher(None, 1.0, lambda: math.inf, threading.Event())
    with dribbling(answer) as url, pytest.raises(SlowRetrievalError):
        fetcher.open(url, {})


@pytest.mark.parametrize("answer", ["body", "chunks"])
def test_a_long_download_has_no_such_limit(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    fetcher = download.MetadataFetcher(None, 1.0, lambda: math.inf, threading.Event())
    with dribbling(answer) as url:
        response = fetcher.open(url, {})
        monkeypatch.setattr(http_deadline, "time", mock.Mock(monotonic=lambda: math.inf))
        assert b"".join(fetcher.iter_body(response)) == b"0" * PIECES


@pytest.mark.parametrize("answer", ["header", "status", "informational"])
def test_no_program_holds_its_health_check(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(health, "_CHECK_SECONDS", STEP)
    with dribbling(answer) as url:
        target = UpdateTarget.model_validate({**TARGET, "health": {"http": url}})
        assert "does not answer" in health.check_health(target, str, STEP)


@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_list_of_another_authority_holds_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str
) -> None:
    """Finding: one list that arrived byte by byte ended the following of all, without an alert."""
    monkeypatch.setattr(foreign, "TIMEOUT", STEP)
    issuers = tmp_path / "issuers.pem"
    issuers.write_text(make_authority(tmp_path / "foreign", DAY).chain)
    with dribbling(answer) as url, pytest.raises(AuthorityError, match="cannot be fetched: TimeoutError"):
        await foreign.X509ExternalCrls(issuers).read(url, DAY)
