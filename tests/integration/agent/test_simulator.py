"""The simulated fleet: over real connections, by its interface and by its lines."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from device_agent.simulator.device import DeviceBehaviour
from device_agent.simulator.fleet import FleetSettings, Observation, SimulatedFleet, UnknownDeviceError
from device_agent.simulator.observations import ObservationKind
from device_agent.simulator.postures import PostureEdit
from schemas.backoff import Backoff
from schemas.broker_address import BrokerAddress
from tests.support.agent_process import WAIT, FakeController, broker_with_controller
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_for

QUICK = DeviceBehaviour(heartbeat_every=0.3, receipt_timeout=1.0, action_seconds=0.05)


class _Watch:
    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def __call__(self, observation: Observation) -> None:
        self.seen.append(observation)

    def of(self, seen: ObservationKind, device_id: str = "") -> list[Observation]:
        return [o for o in self.seen if o.seen is seen and device_id in {"", o.device_id}]


def _settings(url: str, **more: Any) -> FleetSettings:
    fields: dict[str, Any] = {"devices": 3, "habits": QUICK, "backoff": Backoff(first=0.05, cap=0.3), **more}
    return FleetSettings(servers=(BrokerAddress.parse(url),), **fields)


def test_reports_receipts_commands_and_repair() -> None:
    watch = _Watch()
    with broker_with_controller() as (broker, controller):
        settings = _settings(f"mqtt://127.0.0.1:{broker.port}", controller_keys=(controller.public_key,))
        with SimulatedFleet(settings, watch) as fleet:
            wait_for(
                lambda: len({o.device_id for o in watch.of(ObservationKind.RECEIPT)}) == 3, "a receipt for each device"
            )
            fleet.change("sim-002", PostureEdit(open_port=23))
            wait_for(lambda: len(controller.full()) == 4, "the changed report")
            bad = controller.full()[-1]
            assert bad["device_id"] == "sim-002"
            assert 23 in [entry["port"] for entry in bad["sections"]["sockets"]["listening"]]
            controller.command(controller.envelope("service.disable", device_id="sim-002", name="telnetd"), "sim-002")
            wait_for(lambda: len(controller.full()) == 5, "the report after the repair")
            assert 23 not in [e["port"] for e in controller.full()[-1]["sections"]["sockets"]["listening"]]
            assert [end["state"] for end in controller.ends()] == ["succeeded"]
            controller.command(b"{}", "sim-003")
            rejected = wait_for(lambda: watch.of(ObservationKind.COMMAND_REJECTED), "the refusal")[0]
            assert (rejected.device_id, rejected.data["command_id"]) == ("sim-003", None)
            wait_for(controller.heartbeats, "a heartbeat")
            with pytest.raises(UnknownDeviceError):
                fleet.change("sim-999", PostureEdit())
            fleet.change("sim-001", PostureEdit(sections={"firewall": {"active": "perhaps"}}))
            wait_for(lambda: watch.of(ObservationKind.CHANGE_REFUSED), "the refusal of a change that makes no posture")
        wait_for(lambda: len([s for s in controller.of("status") if s["state"] == "offline"]) == 3, "three goodbyes")
    assert fleet.connected == 0


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_over_tls_with_a_certificate_for_each_device(tmp_path: Path, protocol: Any) -> None:
    certs, watch = Certs(tmp_path), _Watch()
    for number in range(1, 4):
        certs.client(f"sim-00{number}")
    with broker_with_controller(certs, tls_conf="use_identity_as_username true") as (broker, controller):
        settings = _settings(f"mqtts://127.0.0.1:{broker.tls_port}", ca=certs.ca, cert_dir=tmp_path, protocol=protocol)
        with SimulatedFleet(settings, watch):
            wait_for(lambda: len(controller.full()) >= 3, "three reports")
            assert "u'sim-002'" in broker.log
            expected = "5" if protocol == "auto" else "3.1.1"
            assert {o.data["mqtt"] for o in watch.of(ObservationKind.CONNECTED)} == {expected}


def test_silence_cuts_and_returns() -> None:
    watch = _Watch()
    with broker_with_controller() as (broker, controller):
        settings = _settings(f"mqtt://127.0.0.1:{broker.port}")
        with SimulatedFleet(settings, watch) as fleet:
            wait_for(lambda: len(controller.heartbeats()) >= 3, "heartbeats")
            fleet.cut("sim-001")
            wait_for(lambda: len(watch.of(ObservationKind.CONNECTED, "sim-001")) == 2, "the return after a cut")
            fleet.go_silent("sim-001", vanish=True)
            fleet.go_silent("sim-002")
            wait_for(lambda: watch.of(ObservationKind.DISCONNECTED, "sim-001")[1:], "the vanishing")
            sent = len(watch.of(ObservationKind.REPORT_SENT, "sim-003"))
            silent = len(watch.of(ObservationKind.REPORT_SENT, "sim-002"))
            wait_for(lambda: len(watch.of(ObservationKind.REPORT_SENT, "sim-003")) >= sent + 3, "the others going on")
            assert len(watch.of(ObservationKind.REPORT_SENT, "sim-002")) <= silent + 1
            assert len(watch.of(ObservationKind.CONNECTED, "sim-001")) == 2
            assert fleet.connected == 2
            for name in ("sim-001", "sim-002"):
                fleet.speak(name)
            wait_for(lambda: fleet.connected == 3, "its return")
            wait_for(lambda: len(watch.of(ObservationKind.REPORT_SENT, "sim-002")) > silent + 1, "its voice")


def test_refusals_are_seen_with_their_code_and_tried_again() -> None:
    watch = _Watch()
    with Mosquitto(extra_conf="allow_anonymous false") as broker:
        with SimulatedFleet(_settings(f"mqtt://127.0.0.1:{broker.port}", devices=1), watch):
            wait_for(lambda: len(watch.of(ObservationKind.REFUSED)) >= 3, "three refusals")
        assert {o.data["code"] for o in watch.of(ObservationKind.REFUSED)} == {135}


def test_two_hundred_devices_in_one_process() -> None:
    watch = _Watch()
    with broker_with_controller(extra_conf="max_queued_messages 0") as (broker, controller):
        settings = _settings(
            f"mqtt://127.0.0.1:{broker.port}", devices=200, habits=DeviceBehaviour(telemetry_every=0.5)
        )
        before = threading.active_count()
        with SimulatedFleet(settings, watch) as fleet:
            wait_for(
                lambda: len({o.device_id for o in watch.of(ObservationKind.RECEIPT)}) == 200,
                "a receipt for each device",
            )
            wait_for(
                lambda: len({o.device_id for o in watch.of(ObservationKind.PUBLISHED)}) == 200,
                "telemetry of each device",
            )
            assert threading.active_count() - before < 20
            assert fleet.connected == 200
        assert len({report["device_id"] for report in controller.full()}) == 200
        assert fleet.connected == 0


def _lines(argv: list[str], orders: list[dict[str, Any]] | None) -> tuple[list[dict[str, Any]], int]:
    """Run the simulator, send orders once it is ready, and collect what it writes."""
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
            if lines[-1]["seen"] == "ready" and orders is not None:
                process.stdin.write("".join(json.dumps(order) + "\n" for order in orders))
                process.stdin.flush()
        return lines, process.wait(WAIT)


def test_the_line_protocol() -> None:
    with broker_with_controller() as (broker, controller):
        argv = ["--control", "--devices", "2", "--servers", f"mqtt://127.0.0.1:{broker.port}"]
        orders: list[dict[str, Any]] = [
            {"do": "change", "device": "sim-001", "open_port": 23, "id": 1},
            {"do": "change", "device": 9, "open_port": 23, "id": 2},
            {"do": "dance", "id": 3},
            {"do": "status", "id": 4},
            {"do": "telemetry", "device": "*", "id": 5},
            {"do": "stop"},
        ]
        lines, status = _lines(argv, orders)
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
        wait_for(lambda: len(controller.full()) == 3, "the changed report")


def test_a_script_is_played_in_its_time(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        '{"at": 0.1, "do": "change", "device": 1, "openssl": "3.0.11-1~deb12u1"}\n\n{"at": 1.0, "do": "stop"}\n'
    )
    with broker_with_controller() as (broker, controller):
        url = f"mqtt://127.0.0.1:{broker.port}"
        argv = ["--devices", "1", "--servers", url, "--script", str(script), "--observe", "connected"]
        lines, status = _lines(argv, None)
        assert (status, [line["seen"] for line in lines]) == (0, ["connected", "ready", "stopped"])
        wait_for(lambda: len(controller.full()) == 2, "both reports")
        assert controller.full()[1]["sections"]["openssl"]["version"] == "3.0.11"


@pytest.mark.parametrize(
    ("argv", "said"),
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
def test_wrong_arguments_are_one_clear_line(argv: list[str], said: str) -> None:
    command = [sys.executable, "-m", "device_agent.main", "simulate", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_controller_is_heard_by_every_device_only_itself() -> None:
    with Mosquitto() as broker, FakeController(broker.host, broker.port) as controller:
        watch = _Watch()
        with SimulatedFleet(_settings(f"mqtt://127.0.0.1:{broker.port}"), watch):
            wait_for(lambda: len(controller.full()) == 3, "three reports")
            controller.receipt("sim-001", None, "resend_full")
            wait_for(lambda: len(controller.full()) == 4, "the report that was asked for")
            assert controller.full()[-1]["device_id"] == "sim-001"
