"""Mutual TLS on a real broker that checks revocation lists, with certificates from Cordon's own authority."""

import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.identity.certificates import CertificateKind
from tests.support.identity import Files, IssuedFiles
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_probe import Endpoint, Probe
from tests.support.waiting import wait_for


class Broker:
    """A mosquitto that lets in whoever has a certificate of the authority that is on no list."""

    def __init__(self, files: Files) -> None:
        self.files = files
        server = files.issue("127.0.0.1", CertificateKind.SERVER, ["127.0.0.1", "localhost"])

        class Tls:
            ca, server_cert, server_key = files.ca, server.chain, server.key

        self.process = Mosquitto(tls=Tls(), tls_conf=f"crlfile {files.lists}\nuse_identity_as_username true")  # type: ignore[arg-type]  # the three paths are all that is read

    def endpoint(self, issued: IssuedFiles) -> Endpoint:
        context = ssl.create_default_context(cafile=str(self.files.ca))
        context.load_cert_chain(issued.chain, issued.key)
        return Endpoint("127.0.0.1", self.process.tls_port, tls=context)

    def lets_in(self, issued: IssuedFiles) -> bool:
        probe = Probe(self.endpoint(issued), issued.certificate.name)
        try:
            return probe.connect().code == 0
        except (AssertionError, OSError):
            return False
        finally:
            probe.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(Files(tmp_path_factory.mktemp("mtls"), time.time()))
    with made.process:
        yield made


def test_a_certificate_of_ours_gets_in(broker: Broker) -> None:
    assert broker.lets_in(broker.files.issue("edge-1"))


def test_one_of_another_authority_does_not(broker: Broker, tmp_path: Path) -> None:
    foreign = Files(tmp_path, time.time()).issue("edge-1")
    with pytest.raises(OSError):
        _connect(broker, foreign)


def _connect(broker: Broker, issued: IssuedFiles) -> None:
    import socket

    context = ssl.create_default_context(cafile=str(broker.files.ca))
    context.load_cert_chain(issued.chain, issued.key)
    with (
        socket.create_connection(("127.0.0.1", broker.process.tls_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        # With TLS 1.3 a client learns from the first read that its certificate was refused.
        secured.sendall(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x")
        if not secured.recv(1):
            raise ConnectionResetError("closed by the broker")


def test_a_revoked_one_is_refused_at_its_next_handshake_and_the_live_session_goes_on(broker: Broker) -> None:
    """What a list does and does not: this is why a revocation also ends the session at the broker."""
    one = broker.files.issue("edge-2")
    live = Probe(broker.endpoint(one), "edge-2").enter()
    broker.files.publish(one.certificate)
    import os

    os.kill(broker.process.pid, signal.SIGHUP)

    def is_refused() -> bool:
        try:
            _connect(broker, one)
        except OSError:
            return True
        return False

    wait_for(is_refused, "the list to be read")
    assert live.alive()
    live.close()
    assert broker.lets_in(broker.files.issue("edge-2"))


def test_a_list_that_is_out_of_date_lets_nobody_in(tmp_path: Path) -> None:
    files = Files(tmp_path, time.time() - 3 * 86_400)
    files._now = time.time() - 3 * 86_400
    files.publish()
    files._now = time.time()
    stale = Broker(files)
    with stale.process, pytest.raises(OSError):
        _connect(stale, files.issue("edge-3"))


def test_a_server_certificate_is_no_clients(broker: Broker) -> None:
    with pytest.raises(OSError):
        _connect(broker, broker.files.issue("edge-4", CertificateKind.SERVER, ["edge-4"]))
