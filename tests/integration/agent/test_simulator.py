"""The simulated fleet with real connections, through its interface and its line protocol."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.simulator.device import DeviceBehaviour
from device_agent.simulator.fleet import FleetSettings, SimulatedFleet, UnknownDeviceError
from device_agent.simulator.observations import Observation, ObservationKind
from device_agent.simulator.postures import PostureEdit
from schemas.backoff import Backoff
from schemas.broker_address import BrokerAddress
from tests.support.agent_process import WAIT, FakeController, broker_with_controller
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

QUICK = DeviceBehaviour(heartbeat_every=0.3, receipt_timeout=1.0, action_seconds=0.05)


class _ObservationLog:
    def __init__(self) -> None:
        self.observations: list[Observation] = []

    def __call__(self, observation: Observation) -> None:
        self.observations.append(observation)

    def of(self, kind: ObservationKind, device_id: str = "") -> list[Observation]:
        return [o for o in self.observations if o.kind is kind and device_id in {"", o.device_id}]


def _settings(url: str, **more: Any) -> FleetSettings:
    fields: dict[str, Any] = {"devices": 3, "behaviour": QUICK, "backoff": Backoff(first=0.05, cap=0.3), **more}
    return FleetSettings(servers=(BrokerAddress.parse(url),), **fields)


def test_devices_report_receive_receipts_and_execute_commands() -> None:
    log = _ObservationLog()
    with broker_with_controller() as (broker, controller):
        settings = _settings(f"mqtt://127.0.0.1:{broker.port}", controller_keys=(controller.public_key,))
        with SimulatedFleet(settings, log) as fleet:
            wait_for(
                lambda: len({o.device_id for o in log.of(ObservationKind.RECEIPT)}) == 3, "a receipt for each device"
            )
            fleet.change("sim-002", PostureEdit(open_port=23))
            wait_for(lambda: len(controller.full()) == 4, "the changed report")
            changed = controller.full()[-1]
            assert changed["device_id"] == "sim-002"
            assert 23 in [entry["port"] for entry in changed["sections"]["sockets"]["listening"]]
            controller.command(controller.envelope("service.disable", device_id="sim-002", name="telnetd"), "sim-002")
            wait_for(lambda: len(controller.full()) == 5, "the report after the repair")
            assert 23 not in [e["port"] for e in controller.full()[-1]["sections"]["sockets"]["listening"]]
            assert [end["state"] for end in controller.ends()] == ["succeeded"]
            controller.command(b"{}", "sim-003")
            rejected = wait_for(lambda: log.of(ObservationKind.COMMAND_REJECTED), "the rejection")[0]
            assert (rejected.device_id, rejected.data["command_id"]) == ("sim-003", None)
            wait_for(controller.heartbeats, "a heartbeat")
            with pytest.raises(UnknownDeviceError):
                fleet.change("sim-999", PostureEdit())
            fleet.change("sim-001", PostureEdit(sections={"firewall": {"active": "perhaps"}}))
            wait_for(lambda: log.of(ObservationKind.CHANGE_REFUSED), "the rejection of an invalid change")
        wait_for(lambda: len([s for s in controller.of("status") if s["state"] == "offline"]) == 3, "offline statuses")
    assert fleet.connected == 0


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_each_device_connects_with_its_own_certificate(tmp_path: Path, protocol: Any) -> None:
    certs, log = Certs(tmp_path), _ObservationLog()
    for number in range(1, 4):
        certs.client(f"sim-00{number}")
    with broker_with_controller(certs, tls_conf="use_identity_as_username true") as (broker, controller):
        settings = _settings(f"mqtts://127.0.0.1:{broker.tls_port}", ca=certs.ca, cert_dir=tmp_path, protocol=protocol)
        with SimulatedFleet(settings, log):
            wait_for(lambda: len(controller.full()) >= 3, "three reports")
            assert "u'sim-002'" in broker.log
            expected = "5" if protocol == "auto" else "3.1.1"
            assert {o.data["mqtt"] for o in log.of(ObservationKind.CONNECTED)} == {expected}


def test_devices_are_disconnected_silenced_and_resumed() -> None:
    log = _ObservationLog()
    with broker_with_controller() as (broker, controller):
        settings = _settings(f"mqtt://127.0.0.1:{broker.port}")
        with SimulatedFleet(settings, log) as fleet:
            wait_for(lambda: len(controller.heartbeats()) >= 3, "heartbeats")
            fleet.drop_connection("sim-001")
            wait_for(lambda: len(log.of(ObservationKind.CONNECTED, "sim-001")) == 2, "the reconnect")
            fleet.silence("sim-001", vanish=True)
            fleet.silence("sim-002")
            wait_for(lambda: log.of(ObservationKind.DISCONNECTED, "sim-001")[1:], "the disconnect")
            sent = len(log.of(ObservationKind.REPORT_SENT, "sim-003"))
            silent = len(log.of(ObservationKind.REPORT_SENT, "sim-002"))
            wait_for(
                lambda: len(log.of(ObservationKind.REPORT_SENT, "sim-003")) >= sent + 3, "reports of another device"
            )
            assert len(log.of(ObservationKind.REPORT_SENT, "sim-002")) <= silent + 1
            assert len(log.of(ObservationKind.CONNECTED, "sim-001")) == 2
            assert fleet.connected == 2
            for name in ("sim-001", "sim-002"):
                fleet.unsilence(name)
            wait_for(lambda: fleet.connected == 3, "the reconnect")
            wait_for(
                lambda: len(log.of(ObservationKind.REPORT_SENT, "sim-002")) > silent + 1, "a report after the silence"
            )


def test_rejected_connections_are_observed_with_their_code_and_retried() -> None:
    log = _ObservationLog()
    with Mosquitto(extra_conf="allow_anonymous false") as broker:
        with SimulatedFleet(_settings(f"mqtt://127.0.0.1:{broker.port}", devices=1), log):
            wait_for(lambda: len(log.of(ObservationKind.REFUSED)) >= 3, "three rejections")
        assert {o.data["code"] for o in log.of(ObservationKind.REFUSED)} == {135}


def test_two_hundred_devices_run_in_one_process() -> None:
    log = _ObservationLog()
    with broker_with_controller(extra_conf="max_queued_messages 0") as (broker, controller):
        settings = _settings(
            f"mqtt://127.0.0.1:{broker.port}", devices=200, behaviour=DeviceBehaviour(telemetry_every=0.5)
        )
        before = threading.active_count()
        with SimulatedFleet(settings, log) as fleet:
            wait_for(
                lambda: len({o.device_id for o in log.of(ObservationKind.RECEIPT)}) == 200,
                "a receipt for each device",
            )
            wait_for(
                lambda: len({o.device_id for o in log.of(ObservationKind.PUBLISHED)}) == 200,
                "telemetry of each device",
            )
            assert threading.active_count() - before < 20
            assert fleet.connected == 200
        assert len({report["device_id"] for report in controller.full()}) == 200
        assert fleet.connected == 0


def _run(
    argv: list[str], requests: list[dict[str, Any]] | None, before_stop: Callable[[], object] = lambda: None
) -> tuple[list[dict[str, Any]], int]:
    """Runs the simulator and sends the requests once it is ready; after the last answer it waits and sends `stop`.

    Returns:
        Its output lines and exit status.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "device_agent.main", "--log-level", "warning", "simulate", *argv],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    lines = []
    with process, process.stdin, process.stdout:
        for text in process.stdout:
            lines.append(json.loads(text))
            if lines[-1]["seen"] == "ready" and requests is not None:
                process.stdin.write("".join(json.dumps(request) + "\n" for request in requests))
                process.stdin.flush()
            elif requests is not None and lines[-1].get("id") == requests[-1]["id"]:
                before_stop()
                process.stdin.write(json.dumps({"do": "stop"}) + "\n")
                process.stdin.flush()
        return lines, process.wait(WAIT)


def test_requests_on_standard_input_are_applied_and_answered() -> None:
    with broker_with_controller() as (broker, controller):
        argv = ["--control", "--devices", "2", "--servers", f"mqtt://127.0.0.1:{broker.port}"]
        requests: list[dict[str, Any]] = [
            {"do": "change", "device": "sim-001", "open_port": 23, "id": 1},
            {"do": "change", "device": 9, "open_port": 23, "id": 2},
            {"do": "dance", "id": 3},
            {"do": "status", "id": 4},
            {"do": "telemetry", "device": "*", "id": 5},
        ]
        lines, status = _run(
            argv, requests, lambda: wait_for(lambda: len(controller.full()) == 3, "the changed report")
        )
        assert status == 0
        assert lines[-1] == {"seen": "stopped"}
        assert [line["id"] for line in lines if line["seen"] == "done"] == [1, 5]
        errors = [line["reason"] for line in lines if line["seen"] == "error"]
        assert errors[0] == "there is no device number 9"
        assert errors[1].startswith("do: ")
        assert [line for line in lines if line["seen"] == "status"] == [
            {"seen": "status", "devices": 2, "connected": 2, "id": 4}
        ]
        changed = next(line for line in lines if line["seen"] == "changed")
        assert changed["device"] == "sim-001"
        assert changed["at"] > 1_700_000_000


def test_a_script_is_run_at_its_times(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        '{"at": 0.1, "do": "change", "device": 1, "openssl": "3.0.11-1~deb12u1"}\n\n{"at": 4.0, "do": "stop"}\n'
    )
    with broker_with_controller() as (broker, controller):
        url = f"mqtt://127.0.0.1:{broker.port}"
        argv = ["--devices", "1", "--servers", url, "--script", str(script), "--observe", "connected"]
        lines, status = _run(argv, None)
        assert (status, [line["seen"] for line in lines]) == (0, ["connected", "ready", "stopped"])
        wait_for(lambda: len(controller.full()) == 2, "both reports")
        assert controller.full()[1]["sections"]["openssl"]["version"] == "3.0.11"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--servers or --config"),
        (["--servers", "http://x"], "--servers"),
        (["--servers", "mqtt://x", "--devices", "0"], "devices"),
        (["--servers", "mqtt://x", "--observe", "nonsense"], "--observe"),
        (["--servers", "mqtt://x", "--controller-key", "k"], "controller key"),
        (["--servers", "mqtt://x", "--heartbeat-every", "often"], "--heartbeat-every"),
        (["--servers", "mqtts://x", "--ca", "/nowhere"], "/nowhere"),
        (["--servers", "mqtt://x", "--script", "/nowhere"], "/nowhere"),
    ],
)
def test_invalid_arguments_give_one_error_line(argv: list[str], message: str) -> None:
    command = [sys.executable, "-m", "device_agent.main", "simulate", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_receipt_only_reaches_its_device() -> None:
    with Mosquitto() as broker, FakeController(broker.host, broker.port) as controller:
        log = _ObservationLog()
        with SimulatedFleet(_settings(f"mqtt://127.0.0.1:{broker.port}"), log):
            wait_for(lambda: len(controller.full()) == 3, "three reports")
            controller.receipt("sim-001", None, "resend_full")
            wait_for(lambda: len(controller.full()) == 4, "the requested report")
            assert controller.full()[-1]["device_id"] == "sim-001"
