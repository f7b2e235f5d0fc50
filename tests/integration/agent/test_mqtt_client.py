"""The connection to brokers: protocol fallback, several servers, outages, untrusted and faulty brokers."""

import shutil
import socket
import threading
from pathlib import Path

import pytest

from device_agent.domain.connection_policy import ConnectionOutcome
from device_agent.domain.report_outbox import MAX_PENDING_REPORTS
from tests.support.agent_process import DEVICE, AgentProcess, ThreadedProxy, broker_with_controller, write_config
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.waiting import wait_for


class _Scripted:
    """A TCP server before a broker that answers an MQTT 5 CONNECT itself and forwards MQTT 3.1.1."""

    def __init__(self, broker_port: int, answer: bytes | None) -> None:
        self._broker_port = broker_port
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.levels: list[int] = []
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for sock in self._open:
            sock.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            connect = client.recv(4096)
            # Fixed header (2 bytes for these lengths, or 3), then "MQTT" and the protocol level.
            level = connect[connect.index(b"MQTT") + 4]
            self.levels.append(level)
            if level == 4:
                server = socket.create_connection(("127.0.0.1", self._broker_port))
                self._open.append(server)
                server.sendall(connect)
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()
            elif self._answer is not None:
                client.sendall(self._answer)
                client.close()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="answers nothing"),
        pytest.param(b"", id="closes without an answer"),
        pytest.param(b"\x20\x02\x00\x01", id="refuses as a broker of 3.1.1 does"),
        pytest.param(b"\x20\x03\x00\x84\x00", id="refuses as a broker of 5 does"),
    ],
)
def test_the_client_falls_back_to_3_1_1(tmp_path: Path, answer: bytes | None) -> None:
    with broker_with_controller() as (broker, controller):
        old = _Scripted(broker.port, answer)
        try:
            more = 'connect_timeout = "1s"'
            config = write_config(tmp_path, [f"mqtt://127.0.0.1:{old.port}"], mqtt_more=more)
            with AgentProcess(config):
                wait_for(controller.heartbeats, "a heartbeat")
                assert old.levels == [5, 4]
        finally:
            old.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 64,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\x00",
        b"\x20\x7f\xff",
        b"\x30\xff\xff\xff\xff\x7f",
        b"\xf0\x00",
    ],
    ids=repr,
)
def test_invalid_packets_from_a_broker_do_not_end_the_agent(tmp_path: Path, garbage: bytes) -> None:
    with broker_with_controller() as (broker, controller):
        strange = _Scripted(broker.port, garbage)
        try:
            servers = [f"mqtt://127.0.0.1:{strange.port}", f"mqtt://127.0.0.1:{broker.port}"]
            more = 'connect_timeout = "1s"\nprotocol = "5"'
            with AgentProcess(write_config(tmp_path, servers, mqtt_more=more)) as agent:
                wait_for(controller.full, "a report through the second server")
                assert agent.status is None
                assert strange.levels
        finally:
            strange.close()


def test_invalid_receipts_and_commands_do_not_end_the_agent(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        with AgentProcess(config) as agent:
            wait_for(controller.full, "a report")
            for channel in ("receipt", "command"):
                for garbage in (b"", b"\xff\xfe", b"[]", b"{" * 5000, b'{"v":1}', b"x" * 100_000):
                    controller.publish(f"cordon/v1/{DEVICE}/down/{channel}", garbage)
            controller.command(controller.envelope("test.append"))
            end = wait_for(controller.ends, "the end of a command that came after it")[0]
            assert end["state"] == "succeeded"
            assert agent.status is None
            assert "Traceback" not in agent.log


def test_servers_are_tried_in_turn(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        servers = [f"mqtt://127.0.0.1:{free_port()}", f"mqtt://127.0.0.1:{broker.port}"]
        with AgentProcess(write_config(tmp_path, servers)):
            wait_for(controller.full, "a report through the second server")


def test_a_broker_of_another_authority_is_refused_and_logged(tmp_path: Path) -> None:
    certs, others = Certs(tmp_path / "certs"), Certs(tmp_path / "others")
    with Mosquitto(tls=certs) as broker:
        config = write_config(tmp_path, [f"mqtts://127.0.0.1:{broker.tls_port}"], certs=others)
        with AgentProcess(config) as agent:
            wait_for(lambda: "certificate is not trusted" in agent.log, "the reason in the log")
            assert agent.status is None
            assert "Traceback" not in agent.log
        assert DEVICE not in broker.log


def test_an_expired_certificate_is_named_and_no_other_protocol_version_is_tried(tmp_path: Path) -> None:
    certs = Certs(tmp_path / "certs")
    certificate, key = certs.expired_client(DEVICE)
    files = f'ca = "{certs.ca}"\ncertificate = "{certificate}"\nkey = "{key}"'
    with Mosquitto(tls=certs) as broker:
        config = write_config(tmp_path, [f"mqtts://127.0.0.1:{broker.tls_port}"], mqtt_more=files)
        with AgentProcess(config) as agent:
            wait_for(lambda: agent.log.count("next attempt") >= 3, "three attempts")
            # An attempt that ends without an answer is repeated with the other version.
            assert f": {ConnectionOutcome.MUTE} (" not in agent.log
            assert f": {ConnectionOutcome.UNREACHABLE} (" in agent.log
            wait_for(lambda: "certificate expired" in agent.log, "the reason in the log")


@pytest.mark.parametrize("renew", [False, True])
def test_a_new_key_pair_in_place_of_the_old_one_is_used_without_a_signal(tmp_path: Path, renew: bool) -> None:
    certs = Certs(tmp_path / "certs")
    old, old_key = certs.expired_client(DEVICE)
    new, new_key = certs.new_client(DEVICE, "new")
    certificate, key = tmp_path / "device.pem", tmp_path / "device.key"
    certificate.write_bytes(old.read_bytes())
    shutil.copy(old_key, key)
    files = f'ca = "{certs.ca}"\ncertificate = "{certificate}"\nkey = "{key}"\n[identity]\nrenew = {str(renew).lower()}'
    with broker_with_controller(certs) as (broker, _):
        config = write_config(tmp_path, [f"mqtts://127.0.0.1:{broker.tls_port}"], mqtt_more=files)
        with AgentProcess(config, is_light=False) as agent:
            wait_for(lambda: "next attempt" in agent.log, "the old pair is refused")
            # One after the other, as an enrolment writes them.
            new_key.replace(key)
            new.replace(certificate)
            wait_for(lambda: "connected to" in agent.log, "connected with the new pair")
            assert agent.log.count(f"runs as {DEVICE}") == 2, "no restart of the process, one of its parts"
            assert "stays as it was" not in agent.log


def test_refused_connections_are_repeated_with_growing_waits(tmp_path: Path) -> None:
    refuse = "allow_anonymous false"
    with (
        Mosquitto(extra_conf=refuse) as broker,
        AgentProcess(write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"])) as agent,
    ):
        wait_for(lambda: agent.log.count("refused") >= 3, "three refused attempts")
        assert "Not authorized (135)" in agent.log


def test_pending_reports_are_bounded_during_an_outage_and_drops_are_reported(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller), ThreadedProxy(broker.port) as proxy:
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{proxy.port}"])
        config.write_text(config.read_text().replace('scan_every = "1h"', 'scan_every = "100ms"'))
        with AgentProcess(config) as agent:
            wait_for(controller.heartbeats, "a heartbeat")
            proxy.is_open = False
            proxy.cut()
            wait_for(lambda: controller.of("status")[-1]["state"] == "offline", "the will")
            before = len(controller.full())
            owed = tmp_path / "state" / "reports.json"
            for number in range(MAX_PENDING_REPORTS + 3):
                (tmp_path / "posture.txt").write_text(f"changed-{number}")
                wait_for(lambda n=number: f"changed-{n}\\" in owed.read_text(), f"change {number} to be saved")  # type: ignore[misc]  # bound now
            proxy.is_open = True
            event = wait_for(lambda: controller.of("event"), "the event about dropped reports")[0]
            assert (event["kind"], event["count"]) == ("reports_dropped", 3)
            wait_for(lambda: len(controller.full()) >= before + MAX_PENDING_REPORTS, "all reports that were kept")
            kernels = [
                report["sections"]["os"]["kernel"] for report in controller.full()[before:][:MAX_PENDING_REPORTS]
            ]
            assert kernels == [f"changed-{number}" for number in range(3, MAX_PENDING_REPORTS + 3)]
            assert agent.status is None


def test_the_client_reconnects_after_a_broker_restart(tmp_path: Path) -> None:
    with broker_with_controller(persistence=True) as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"])
        with AgentProcess(config) as agent:
            wait_for(controller.heartbeats, "a heartbeat")
            broker.stop(kill=True)
            wait_for(lambda: "next attempt" in agent.log, "the loss")
            beats = len(controller.heartbeats())
            broker.start()
            wait_for(lambda: len(controller.heartbeats()) > beats, "a heartbeat afterwards")
