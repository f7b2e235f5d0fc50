"""The client against real servers that behave, misbehave, or are not there."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from controller.cli import client as client_module
from controller.cli.client import ApiClient, ApiEndpoint, segment
from controller.cli.errors import CliError, ExitCode
from tests.support.api import TOKEN
from tests.support.api_server import ApiServer
from tests.support.certs import Certs


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API with three devices."""
    path = tmp_path_factory.mktemp("client") / "cordon.db"
    with ApiServer(path, {"edge-1": (23,), "edge-2": (), "edge-3": ()}) as server:
        yield server


def test_answers(api: ApiServer) -> None:
    client = ApiClient(ApiEndpoint(api.url, TOKEN))
    assert client.get("/devices", level="restricted", search=None)["total"] == 1
    assert client.call("PUT", f"/devices/{segment('edge-2')}/labels", {"tags": ["x"]})["tags"] == ["x"]
    made = client.call("POST", "/tokens", {"name": "gone"})
    assert client.call("DELETE", "/tokens/gone") is None
    with pytest.raises(CliError) as caught:
        ApiClient(ApiEndpoint(api.url, made["token"])).get("/devices")
    assert caught.value.code is ExitCode.NOT_ALLOWED


def test_pages_follow_on(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    client = ApiClient(ApiEndpoint(api.url, TOKEN))
    ids = [one["device_id"] for one in client.pages("/devices")]
    assert ids == ["edge-1", "edge-2", "edge-3"]
    assert len(list(client.pages("/devices", 1))) == 1


@pytest.mark.parametrize(
    ("token", "path", "code", "text"),
    [
        (None, "/devices", ExitCode.NOT_ALLOWED, "needs a token"),
        ("wrong", "/devices", ExitCode.NOT_ALLOWED, "not known here"),
        (TOKEN, "/devices/nobody", ExitCode.FAILED, "no device nobody has ever reported"),
        (TOKEN, "/nowhere", ExitCode.FAILED, "Not Found"),
        ("line\nbreak", "/devices", ExitCode.USAGE, "cannot ask"),
    ],
)
def test_refusals(api: ApiServer, token: str | None, path: str, code: ExitCode, text: str) -> None:
    with pytest.raises(CliError, match=text) as caught:
        ApiClient(ApiEndpoint(api.url, token)).get(path)
    assert caught.value.code is code


def test_segments_cannot_leave_their_place() -> None:
    assert segment("../tokens?x#y") == "..%2Ftokens%3Fx%23y"


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(CliError, match="refused") as caught:
        ApiClient(ApiEndpoint(f"http://127.0.0.1:{port}", None)).get("/devices")
    assert caught.value.code is ExitCode.UNREACHABLE


def test_somebody_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CliError, match="may still happen") as caught:
            ApiClient(ApiEndpoint(url, None)).get("/devices")
    assert caught.value.code is ExitCode.UNREACHABLE


class _Strange(BaseHTTPRequestHandler):
    """Answers what the path says."""

    def do_GET(self) -> None:
        kind = self.path.rpartition("/")[2]
        status, body = {
            "html": (200, b"<html>"),
            "odd": (500, b"[]"),
            "large": (200, b" " * 5000),
            "redirect": (302, b"{}"),
        }[kind]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://192.0.2.1/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Quiet."""


@pytest.fixture(scope="module")
def strange() -> Iterator[str]:
    """A server that is not Cordon's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Strange) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "text"),
    [("html", "not Cordon's"), ("odd", "answered 500"), ("large", "larger than"), ("redirect", "answered 302")],
)
def test_answers_that_are_none(strange: str, path: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER", 1000)
    with pytest.raises(CliError, match=text):
        ApiClient(ApiEndpoint(strange, "t")).get(f"/{path}")


def test_tls_is_verified(tmp_path: Path) -> None:
    certs = Certs(tmp_path)
    devices: dict[str, tuple[int, ...]] = {"edge-1": ()}
    with ApiServer(tmp_path / "db", devices, certificate=certs.server_cert, key=certs.server_key) as server:
        assert ApiClient(ApiEndpoint(server.url, TOKEN, certs.ca)).get("/devices")["total"] == 1
        with pytest.raises(CliError, match="not trusted") as caught:
            ApiClient(ApiEndpoint(server.url, TOKEN)).get("/devices")
        assert caught.value.code is ExitCode.UNREACHABLE
        with pytest.raises(CliError, match="CA") as caught:
            ApiClient(ApiEndpoint(server.url, TOKEN, tmp_path / "none")).get("/devices")
        assert caught.value.code is ExitCode.USAGE
