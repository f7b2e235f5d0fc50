"""Options, words, back-off, and the buffered socket."""

import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import client as paho

from controller.adapters.mqtt.buffered_socket import BufferedSocket, HeldTlsContext, open_wire, tls_context
from controller.adapters.mqtt.messages import STABLE_SECONDS, ReconnectBackoff
from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.mqtt.packets import publish_packet
from controller.adapters.mqtt.reason_codes import (
    DisconnectKind,
    connack_reason,
    describe_network_error,
    disconnect_reason,
)
from schemas.backoff import Backoff
from schemas.broker_address import BrokerAddress
from tests.support.certs import Certs

HERE: dict[str, Any] = {"servers": ("mqtt://localhost",), "client_id": "c"}


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "text"),
    [
        ("mqtt://broker", "broker", 1883, False, "mqtt://broker:1883"),
        ("mqtts://broker", "broker", 8883, True, "mqtts://broker:8883"),
        ("mqtts://10.0.0.1:884/", "10.0.0.1", 884, True, "mqtts://10.0.0.1:884"),
        ("mqtt://[::1]:99", "::1", 99, False, "mqtt://[::1]:99"),
    ],
)
def test_server_addresses(url: str, host: str, port: int, tls: bool, text: str) -> None:
    server = BrokerAddress.parse(url)
    assert server == BrokerAddress(host, port, tls)
    assert str(server) == text


@pytest.mark.parametrize(
    "url", ["broker:1883", "http://broker", "mqtt://", "mqtt://user:pw@broker", "mqtt://b/path", "mqtt://b:99999", ""]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+") as refusal:
        BrokerAddress.parse(url)
    assert "pw" not in str(refusal.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"servers": ()},
        {"servers": ("x",)},
        {"servers": ("mqtt://b",) * 17},
        {"client_id": ""},
        {"certificate": Path("c.pem")},
        {"key": Path("k.pem")},
        {"password": "secret"},
        {"receive_maximum": 0},
        {"receive_maximum": 65_536},
        {"keepalive_seconds": 0},
        {"backoff_floor_seconds": 0.0},
        {"backoff_floor_seconds": 99.0},
        {"subscriptions": ()},
        {"max_queued": 0},
        {"max_inflight": 0},
        {"connect_timeout_seconds": 0.0},
        {"session_expiry_seconds": -1},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        MqttOptions(**(HERE | wrong))


def test_password_is_not_shown() -> None:
    assert "geheim" not in repr(MqttOptions(**(HERE | {"username": "u", "password": "geheim"})))


def test_backoff_doubles_to_its_ceiling_and_starts_again_after_a_good_connection() -> None:
    backoff = ReconnectBackoff(Backoff(1.0, 10.0), 40.0, lambda: 0.5)
    assert [backoff.next(DisconnectKind.UNREACHABLE) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset_after(STABLE_SECONDS / 2)
    assert backoff.next(DisconnectKind.DROPPED) == 5.0
    backoff.reset_after(STABLE_SECONDS)
    assert backoff.next(DisconnectKind.DROPPED) == 0.5


def test_backoff_is_spread_over_the_whole_reach_and_stays_finite() -> None:
    numbers = iter([0.0, 0.999] + [1.0] * 5000)
    backoff = ReconnectBackoff(Backoff(1.0, 10.0), 40.0, lambda: next(numbers))
    assert backoff.next(DisconnectKind.DROPPED) == 0.0
    assert backoff.next(DisconnectKind.DROPPED) == pytest.approx(1.998)
    assert max(backoff.next(DisconnectKind.DROPPED) for _ in range(5000)) == 10.0


@pytest.mark.parametrize("kind", [DisconnectKind.REFUSED, DisconnectKind.TAKEN_OVER])
def test_a_no_waits_longer(kind: DisconnectKind) -> None:
    assert ReconnectBackoff(Backoff(1.0, 10.0), 40.0, lambda: 0.0).next(kind) == 20.0
    assert ReconnectBackoff(Backoff(1.0, 10.0), 40.0, lambda: 1.0).next(kind) == 40.0


def test_unknown_codes_keep_the_name_of_the_library() -> None:
    assert connack_reason(200, "Odd").kind is DisconnectKind.REFUSED
    assert "Odd" in connack_reason(200, "Odd").detail
    assert disconnect_reason(200, "Odd").kind is DisconnectKind.DROPPED
    assert "Odd" in disconnect_reason(200, "Odd").detail


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "host name"),
        (TimeoutError(), "in time"),
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens"),
        (ConnectionResetError(104, "Connection reset by peer"), "reset by peer"),
        (FileNotFoundError(2, "No such file", "ca.pem"), "ca.pem"),
        (ssl.SSLError(1, "odd"), "TLS failed: "),
        (OSError(), "OSError"),
        (RuntimeError("odd"), "RuntimeError: odd"),
    ],
)
def test_network_errors_are_described(error: Exception, words: str) -> None:
    assert words in describe_network_error(error)


@pytest.fixture
def pair() -> Iterator[tuple[BufferedSocket, socket.socket]]:
    here, there = socket.socketpair()
    here.setblocking(False)
    wire = BufferedSocket(here)
    yield wire, there
    wire.close()
    there.close()


def test_one_read_serves_many(pair: tuple[BufferedSocket, socket.socket]) -> None:
    wire, there = pair
    there.sendall(b"\xd0\x00\x40\x02\x00\x07\xd0")
    data, start, end = wire.packet() or (b"", 0, 0)
    assert data[start:end] == b"\xd0\x00"
    with pytest.raises(BlockingIOError):
        wire.recv(1)  # not granted
    wire.allow(end)
    assert [wire.recv(1), wire.recv(9)] == [b"\xd0", b"\x00"]
    data, start, end = wire.packet() or (b"", 0, 0)
    assert data[start:end] == b"\x40\x02\x00\x07"
    wire.consume(end)
    before = wire.starved
    assert wire.packet() is None
    assert (before, wire.starved) == (False, True)
    there.sendall(b"\x00")
    data, start, end = wire.packet() or (b"", 0, 0)
    assert data[start:end] == b"\xd0\x00"
    wire.consume(end)
    there.close()
    assert wire.packet() is None
    assert wire.recv(1) == b""
    assert wire.ended


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_packets_are_found_however_they_are_cut(bodies: list[bytes], piece: int) -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        wire = BufferedSocket(here)
        packets = [publish_packet("t", body, None, five=True) for body in bodies]
        stream = b"".join(packets)
        found = []
        for at in range(0, len(stream), piece):
            there.sendall(stream[at : at + piece])
            while (one := wire.packet()) is not None:
                data, start, end = one
                found.append(data[start:end])
                wire.consume(end)
        assert found == packets


def test_what_is_no_mqtt_is_said(pair: tuple[BufferedSocket, socket.socket]) -> None:
    wire, there = pair
    there.sendall(b"\x30\xff\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="four bytes"):
        wire.packet()


def test_many_sends_leave_in_one_write_and_wait_where_they_must(pair: tuple[BufferedSocket, socket.socket]) -> None:
    wire, there = pair
    assert [wire.send(b"ab"), wire.send(b"cd")] == [2, 2]
    there.setblocking(False)
    with pytest.raises(BlockingIOError):
        there.recv(1)
    assert wire.flush()
    assert there.recv(9) == b"abcd"
    data = bytes(range(256)) * 8192
    wire.send(data)
    got = b""
    assert not wire.flush()
    while len(got) < len(data):
        got += there.recv(1 << 20)
        wire.flush()
    assert got == data


def test_broken_connection_is_remembered(pair: tuple[BufferedSocket, socket.socket]) -> None:
    wire, there = pair
    there.close()
    wire.send(b"x")
    with pytest.raises(OSError, match=r".+"):
        wire.flush()
    assert isinstance(wire.trouble, OSError)


def test_close_sends_what_is_left(pair: tuple[BufferedSocket, socket.socket]) -> None:
    wire, there = pair
    wire.send(b"bye")
    wire.close()
    wire.close()
    assert there.recv(9) == b"bye"


def test_trust_files_are_named_when_missing(tmp_path: Path) -> None:
    options = MqttOptions(**(HERE | {"servers": ("mqtts://127.0.0.1",), "ca": tmp_path / "none.pem"}))
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        open_wire(BrokerAddress.parse("mqtts://127.0.0.1"), options, HeldTlsContext(options))


def test_a_reconnect_needs_no_file_while_nothing_changed(tmp_path: Path) -> None:
    certs = Certs(tmp_path)
    certificate, key = certs.client("c")
    options = MqttOptions(**(HERE | {"ca": certs.ca, "certificate": certificate, "key": key}))
    held = HeldTlsContext(options)
    first = held.current()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # as if every descriptor were in use
    try:
        with pytest.raises(OSError, match="Too many open files"):
            tls_context(options)
        assert held.current() is first
        key.touch()
        assert held.current() is first, "changed, and cannot be read now"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    renewed = held.current()
    assert renewed is not first
    key.write_bytes(b"half of a")
    assert held.current() is renewed
    key.unlink()
    assert held.current() is renewed


def test_trust_is_required_and_old_tls_is_off() -> None:
    context = tls_context(MqttOptions(**HERE))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_paho_still_makes_its_socket_where_we_replace_it() -> None:
    # Not a public name: a release of paho that moves it has to fail here and not at a customer.
    assert callable(getattr(paho.Client, "_create_socket", None))
    assert "self._sock = self._create_socket()" in Path(paho.__file__).read_text(encoding="utf-8")
