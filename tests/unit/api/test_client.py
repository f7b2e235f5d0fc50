"""The API client against real servers: well-behaved, misbehaving, and absent."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from controller.api import client as client_module
from controller.api.client import ApiClient, ApiEndpoint, ApiResponseError, ApiUnreachableError, segment
from controller.cli.errors import CliError, ExitCode, code_of
from controller.ports.errors import BrokerUnreachableError, ControllerError, SettingsError
from tests.support.api import TOKEN
from tests.support.api_server import ApiServer
from tests.support.certs import Certs


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API with three devices."""
    path = tmp_path_factory.mktemp("client") / "cordon.db"
    with ApiServer(path, {"edge-1": (23,), "edge-2": (), "edge-3": ()}) as server:
        yield server


def test_calls_return_json(api: ApiServer) -> None:
    client = ApiClient(ApiEndpoint(api.url, TOKEN))
    assert client.get("/devices", level="restricted", search=None)["total"] == 1
    assert client.call("PUT", f"/devices/{segment('edge-2')}/labels", {"tags": ["x"]})["tags"] == ["x"]
    assert client.exchange("GET", "/readyz")[0] in (200, 503)
    created = client.call("POST", "/tokens", {"name": "gone"})
    assert client.call("DELETE", "/tokens/gone") is None
    with pytest.raises(ApiResponseError) as caught:
        ApiClient(ApiEndpoint(api.url, created["token"])).get("/devices")
    assert code_of(caught.value) is ExitCode.NOT_ALLOWED


def test_listing_is_read_page_by_page(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    client = ApiClient(ApiEndpoint(api.url, TOKEN))
    ids = [row["device_id"] for row in client.pages("/devices")]
    assert ids == ["edge-1", "edge-2", "edge-3"]
    assert len(list(client.pages("/devices", 1))) == 1


@pytest.mark.parametrize(
    ("token", "path", "status", "text"),
    [
        (None, "/devices", 401, "needs a token"),
        ("wrong", "/devices", 401, "not known here"),
        (TOKEN, "/devices/nobody", 404, "no device nobody has ever reported"),
        (TOKEN, "/nowhere", 404, "Not Found"),
    ],
)
def test_error_response_carries_its_message(
    api: ApiServer, token: str | None, path: str, status: int, text: str
) -> None:
    with pytest.raises(ApiResponseError, match=text) as caught:
        ApiClient(ApiEndpoint(api.url, token)).get(path)
    assert caught.value.status == status


def test_token_with_a_line_break_is_refused(api: ApiServer) -> None:
    with pytest.raises(SettingsError, match="cannot ask"):
        ApiClient(ApiEndpoint(api.url, "line\nbreak")).get("/devices")


def test_segment_quotes_path_separators() -> None:
    assert segment("../tokens?x#y") == "..%2Ftokens%3Fx%23y"


def test_refused_connection_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ApiUnreachableError, match="refused"):
        ApiClient(ApiEndpoint(f"http://127.0.0.1:{port}", None)).get("/devices")


def test_silent_server_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ApiUnreachableError, match="may still happen"):
            ApiClient(ApiEndpoint(url, None)).get("/devices")


def test_response_that_ends_early_is_unreachable(not_cordon: str) -> None:
    with pytest.raises(ApiUnreachableError, match="cannot reach"):
        ApiClient(ApiEndpoint(not_cordon, "t")).get("/cut")


class _NotCordon(BaseHTTPRequestHandler):
    """Responds as the last segment of the path names."""

    def do_GET(self) -> None:
        kind = self.path.rpartition("/")[2]
        status, body = {
            "cut": (200, b""),
            "html": (200, b"<html>"),
            "odd": (500, b"[]"),
            "large": (200, b" " * 5000),
            "redirect": (302, b"{}"),
        }[kind]
        self.send_response(status)
        self.send_header("Content-Length", "10" if kind == "cut" else str(len(body)))
        self.send_header("Location", "http://192.0.2.1/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture(scope="module")
def not_cordon() -> Iterator[str]:
    """URL of a server that is not Cordon's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _NotCordon) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "text"),
    [("html", "not Cordon's"), ("odd", "answered 500"), ("large", "larger than"), ("redirect", "answered 302")],
)
def test_invalid_responses_are_errors(not_cordon: str, path: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_RESPONSE", 1000)
    with pytest.raises(ApiResponseError, match=text) as caught:
        ApiClient(ApiEndpoint(not_cordon, "t")).get(f"/{path}")
    assert code_of(caught.value) is ExitCode.FAILED


def test_tls_is_verified(tmp_path: Path) -> None:
    certs = Certs(tmp_path)
    devices: dict[str, tuple[int, ...]] = {"edge-1": ()}
    with ApiServer(tmp_path / "db", devices, certificate=certs.server_cert, key=certs.server_key) as server:
        assert ApiClient(ApiEndpoint(server.url, TOKEN, certs.ca)).get("/devices")["total"] == 1
        with pytest.raises(ApiUnreachableError, match="not trusted"):
            ApiClient(ApiEndpoint(server.url, TOKEN)).get("/devices")
        with pytest.raises(SettingsError, match="CA"):
            ApiClient(ApiEndpoint(server.url, TOKEN, tmp_path / "none")).get("/devices")


@pytest.mark.parametrize("url", ["ftp://a", "a:1", "http://", "http://a/path", "http://a:99999"])
def test_invalid_urls_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"address|[Pp]ort"):
        ApiClient(ApiEndpoint(url, None))


@pytest.mark.parametrize("url", ["http://192.0.2.1:1", "http://controller.example:1", "http://localhost.example:1"])
def test_token_is_not_sent_in_clear_text_to_another_machine(url: str) -> None:
    with pytest.raises(SettingsError, match="clear text"):
        ApiClient(ApiEndpoint(url, "t"))
    ApiClient(ApiEndpoint(url, "t", unsafe_http=True))
    ApiClient(ApiEndpoint(url.replace("http:", "https:"), "t"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_plain_http_is_allowed_on_this_machine(url: str) -> None:
    ApiClient(ApiEndpoint(url, "t"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CliError("x", ExitCode.USAGE), ExitCode.USAGE),
        (SettingsError("x"), ExitCode.USAGE),
        (ApiUnreachableError("x"), ExitCode.UNREACHABLE),
        (BrokerUnreachableError("x"), ExitCode.UNREACHABLE),
        (ApiResponseError("x", 401), ExitCode.NOT_ALLOWED),
        (ApiResponseError("x", 403), ExitCode.NOT_ALLOWED),
        (ApiResponseError("x", 429), ExitCode.NOT_ALLOWED),
        (ApiResponseError("x", 422), ExitCode.USAGE),
        (ApiResponseError("x", 404), ExitCode.FAILED),
        (ControllerError("x"), ExitCode.FAILED),
    ],
)
def test_exit_codes_of_errors(error: ControllerError, code: ExitCode) -> None:
    assert code_of(error) is code


def test_a_get_is_repeated_where_the_server_closes_without_an_answer() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for reply in (b"", answer, b""):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(reply)

        thread = Thread(target=serve)
        thread.start()
        client = ApiClient(ApiEndpoint(f"http://127.0.0.1:{server.getsockname()[1]}", "t"))
        assert client.get("/devices") == {}
        with pytest.raises(ApiUnreachableError):
            client.call("POST", "/tokens", {})  # it may have been carried out
        thread.join()
