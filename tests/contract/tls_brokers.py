"""Brokers that admit devices by certificates of a test's own authority, and the source of their CRLs."""

import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from controller.domain.identity.certificates import CertificateKind
from tests.support.identity import Files, IssuedFiles
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_probe import Endpoint, Probe
from tests.support.standin import StandInProcess

TLS: Final = "CORDON_TEST_EMQX_TLS"
LISTS: Final = "CORDON_TEST_EMQX_TLS_LISTS"
FOLDER: Final = "CORDON_TEST_EMQX_TLS_FOLDER"
_FILES: Final = ("server.pem", "server.key", "ca.pem")
_ANSWER: Final = 10.0  # seconds for a broker to answer
_FIRST_LISTS: Final = 60.0  # seconds for the lists to be fetched for the first time
_YEAR: Final = 365 * 86_400.0  # seconds that the server certificate of a real broker holds


@dataclass
class Gate:
    """A listener; `refresh` makes it read the CRLs, `no_lists` says why it cannot (empty: it can)."""

    files: Files
    host: str
    port: int
    refresh: Callable[[], None]
    no_lists: str = ""
    probes: list[Probe] = field(default_factory=list)

    def probe(self, issued: IssuedFiles | None, claims: str) -> Probe:
        """A client with this certificate, or none, that claims the client id `claims`."""
        self.probes.append(Probe(Endpoint(self.host, self.port, tls=self._context(issued)), claims))
        return self.probes[-1]

    def _context(self, issued: IssuedFiles | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.files.ca))
        if issued is not None:
            context.load_cert_chain(issued.chain, issued.key)
        return context

    def lets_in(self, issued: IssuedFiles | None, claims: str) -> bool:
        """Whether a connection with it is accepted; sees a refused handshake, which MQTT clients do not tell."""
        hello = b"\x00\x04MQTT\x05\x02\x00\x3c\x00" + len(claims).to_bytes(2, "big") + claims.encode()
        try:
            with (
                socket.create_connection((self.host, self.port), timeout=_ANSWER) as plain,
                self._context(issued).wrap_socket(plain, server_hostname=self.host) as secured,
            ):
                secured.sendall(b"\x10" + bytes([len(hello)]) + hello)
                # With TLS 1.3 a client learns from the first read that its certificate was refused.
                answer = secured.recv(4)
        except OSError:
            return False
        return answer[:1] == b"\x20" and answer[3:4] == b"\x00"

    def close(self) -> None:
        """Disconnects the clients."""
        for probe in self.probes:
            probe.close()


@contextlib.contextmanager
def mosquitto_gate(where: Path) -> Iterator[Gate]:
    """A real broker that reads CRLs from a file on a signal."""
    files = Files(where, time.time())
    conf = f"crlfile {files.lists}\nuse_identity_as_username true\nuse_username_as_clientid true"
    with Mosquitto(tls=_material(files, "127.0.0.1"), tls_conf=conf) as broker:  # type: ignore[arg-type]  # three paths
        gate = Gate(files, "127.0.0.1", broker.tls_port, lambda: os.kill(broker.pid, signal.SIGHUP))
        with contextlib.closing(gate):
            yield gate


@contextlib.contextmanager
def standin_gate(where: Path) -> Iterator[Gate]:
    """The stand-in, which reads no CRLs."""
    files = Files(where, time.time())
    with StandInProcess(certs=_material(files, "127.0.0.1")) as emqx:  # type: ignore[arg-type]  # three paths
        host, port = emqx.tls[0]
        gate = Gate(files, host, port, _nothing, "the stand-in checks no revocation lists")
        with contextlib.closing(gate):
            yield gate


@contextlib.contextmanager
def emqx_gate() -> Iterator[Gate]:
    """The real EMQX of the environment; it fetches CRLs from this process, in its own time."""
    missing = [name for name in (TLS, LISTS, FOLDER) if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no EMQX with mutual TLS: set {', '.join(missing)} (CONTRIBUTING.md)")
    host, _, port = os.environ[TLS].rpartition(":")
    where, lists = Path(os.environ[FOLDER]), os.environ[LISTS]
    is_new = not all((where / name).exists() for name in _FILES)
    where.mkdir(parents=True, exist_ok=True)
    files = Files(where, time.time(), f"http://{lists}")
    if is_new:
        _material(files, host, _YEAR)
        pytest.skip(f"made {', '.join(_FILES)} in {where}: give them to EMQX's listener and run this again")
    with _serving(files, lists):
        gate = Gate(files, host, int(port), _nothing)
        with contextlib.closing(gate):
            _wait_for_lists(gate)
            yield gate


def _wait_for_lists(gate: Gate) -> None:
    """EMQX admits nobody before it has the CRLs, and fetches them at the first connection."""
    issued, deadline = gate.files.issue("ct-first"), time.monotonic() + _FIRST_LISTS
    while not gate.lets_in(issued, "ct-first"):
        if time.monotonic() > deadline:
            pytest.fail(f"{os.environ[TLS]} lets nobody in: has it this authority, and does it reach {LISTS}?")
        time.sleep(0.5)


def _nothing() -> None:
    """It reads CRLs in its own time, or never."""


class _Material:
    def __init__(self, files: Files, where: Path) -> None:
        self.ca, self.server_cert, self.server_key = files.ca, where / "server.pem", where / "server.key"


def _material(files: Files, host: str, life: float = 86_400.0) -> _Material:
    made = files.issue(host, CertificateKind.SERVER, [host, "localhost"], life)
    found = _Material(files, files.ca.parent)
    made.chain.replace(found.server_cert)
    made.key.replace(found.server_key)
    return found


@contextlib.contextmanager
def _serving(files: Files, lists: str) -> Iterator[None]:
    """Serves the CRLs at the address in the certificates, as the controller does."""
    root = files.authority.root_revocations()
    assert root is not None
    served = {f"/crl/{root.name}.pem": root.pem}
    own = f"/crl/{files.authority.issuer}.pem"

    class Lists(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = files.lists.read_bytes() if self.path == own else served.get(self.path)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_args: object) -> None:
            """Writes no log."""

    server = ThreadingHTTPServer(("", int(lists.rpartition(":")[2])), Lists)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
