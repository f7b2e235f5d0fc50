"""What anybody without a token sends does not fill the controller's log."""

import logging
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from controller.adapters.logs import configure_logs
from tests.support.api_server import ApiServer

pytestmark = pytest.mark.slow

REQUESTS = {
    "malformed": b"GET / HTTP/1.1\r\nHost a\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01" * 10 + b"\r\n\r\n",
    "upgrade": b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "other upgrade": b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
}
HALF_A_BODY = (
    b"POST /api/v1/enrolment/enrol HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: 60000\r\n\r\n{"
)


def ask(url: str, request: bytes) -> bytes:
    parts = urlsplit(url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), 20) as sock:
        sock.sendall(request)
        sock.settimeout(20)
        return sock.recv(4096)


def leave(url: str, request: bytes) -> None:
    parts = urlsplit(url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), 20) as sock:
        sock.sendall(request)


def main(folder: Path) -> None:
    """Serves with the controller's own log, and sends each request once."""
    configure_logs("info", "json")
    with ApiServer(folder / "cordon.db", {}) as server:
        for request in REQUESTS.values():
            assert ask(server.url, request).startswith(b"HTTP/1.1 ")
        for _ in range(3):
            leave(server.url, HALF_A_BODY)
    logging.getLogger("uvicorn.error").error("an error of the server itself")


def test_odd_requests_leave_no_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.attack.test_log_lines", str(tmp_path)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "uvicorn" in line or "HTTP" in line or "pgrade" in line] == []
    assert "an error of the server itself" in done.stderr


if __name__ == "__main__":
    main(Path(sys.argv[1]))
