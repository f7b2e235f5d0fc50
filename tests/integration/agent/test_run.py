"""`cordon-agent run` as a process with a real broker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.posture import REPORT, FullReport
from tests.support.agent_process import (
    DEVICE,
    AgentProcess,
    FakeController,
    ThreadedProxy,
    broker_with_controller,
    write_config,
)
from tests.support.certs import Certs
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


def test_a_report_then_heartbeats_then_the_offline_status_over_tls(tmp_path: Path) -> None:
    certs = Certs(tmp_path / "certs")
    with broker_with_controller(certs) as (broker, controller):
        config = write_config(tmp_path, [f"mqtts://127.0.0.1:{broker.tls_port}"], certs=certs)
        with AgentProcess(config, is_light=False) as agent:
            report = wait_for(controller.full, "a full report")[0]
            parsed = REPORT.validate_python(report)
            assert isinstance(parsed, FullReport)
            assert parsed.device_id == DEVICE
            assert parsed.sections.os is not None
            assert parsed.sections.os.state == "ok"
            assert set(report["sections"]) >= {"os", "updates", "openssl", "sockets", "services", "firewall"}
            ports = {entry["port"] for entry in report["sections"]["sockets"]["listening"]}
            assert broker.tls_port in ports
            beat = wait_for(controller.heartbeats, "a heartbeat")[0]
            assert beat["digest"] == report["digest"]
            assert beat["seq"] > report["seq"]
            assert agent.end(signal.SIGTERM) == 0
            states = [status["state"] for status in wait_for(lambda: controller.of("status")[1:], "two statuses")]
            assert states == ["offline"]
        assert "Traceback" not in agent.log


def test_after_a_kill_the_will_is_retained_as_offline(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        with AgentProcess(write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"])) as agent:
            wait_for(controller.full, "a full report")
            agent.end(signal.SIGKILL)
            wait_for(lambda: controller.of("status")[-1]["state"] == "offline", "the will")
        with FakeController(broker.host, broker.port) as later:
            wait_for(lambda: later.messages, "the retained status")
            topic, status, is_retained = later.messages[0]
            assert (topic, status["state"], is_retained) == (f"cordon/v1/{DEVICE}/up/status", "offline", True)


def test_a_report_is_sent_again_until_its_receipt(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        controller.verdict = None
        with AgentProcess(write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"])) as agent:
            wait_for(lambda: len(controller.full()) >= 2, "the report again after the time-out")
            first, second = controller.full()[:2]
            assert first == second
            assert controller.heartbeats() == []
            agent.end(signal.SIGKILL)
            controller.messages.clear()
            agent.start()
            wait_for(controller.full, "the report after a restart")
            controller.verdict = "accepted"
            wait_for(controller.heartbeats, "a heartbeat after the receipt")
            accepted = {report["digest"] for report in controller.full()}
            assert controller.heartbeats()[0]["digest"] in accepted
            sequence = [report["seq"] for report in controller.full()]
            assert max(sequence) > first["seq"]


def test_a_report_is_sent_again_after_a_lost_connection(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller), ThreadedProxy(broker.port) as proxy:
        controller.verdict = None
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{proxy.port}"], report="")
        config.write_text(config.read_text().replace('receipt_timeout = "1s"', 'receipt_timeout = "10m"'))
        with AgentProcess(config):
            first = wait_for(controller.full, "a report")[0]
            proxy.cut()
            wait_for(lambda: len(controller.full()) >= 2, "the report on the next connection")
            assert controller.full()[1] == first
            assert proxy.accepted >= 2


def test_resend_full_and_rescan_cause_a_new_full_report(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        with AgentProcess(config):
            first = wait_for(controller.full, "a report")[0]
            controller.receipt(DEVICE, first["seq"], "resend_full")
            second = wait_for(lambda: controller.full()[1:], "the report that was asked for")[0]
            assert second["seq"] > first["seq"]
            controller.command(controller.envelope("rescan"))
            third = wait_for(lambda: controller.full()[2:], "the report of a rescan")[0]
            assert third["seq"] > second["seq"]
            assert [end["state"] for end in controller.ends()] == ["succeeded"]


def test_a_rejected_report_is_not_repeated(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        controller.verdict = None
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        with AgentProcess(config) as agent:
            first = wait_for(controller.full, "a report")[0]
            controller.receipt(DEVICE, first["seq"], "rejected", reason="invalid", detail="sections.os.id")
            wait_for(lambda: "rejected report" in agent.log, "the rejection in the log")
            assert "sections.os.id" in agent.log
            count = len(controller.full())
            # The command shows that the agent continued; its rescan causes the next report.
            controller.command(controller.envelope("rescan"))
            wait_for(lambda: len(controller.full()) > count, "a new report after the next scan")
            assert all(report["seq"] != first["seq"] for report in controller.full()[count:])


def test_commands_get_results_and_forged_commands_are_reported(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        with AgentProcess(config):
            wait_for(controller.full, "a report")
            known = controller.envelope("rescan", command_id="known")
            controller.command(known)
            wait_for(controller.ends, "its end")
            controller.command(known)
            wait_for(lambda: len(controller.ends()) == 2, "its end, told again")
            assert controller.ends()[0] == controller.ends()[1]
            controller.command(controller.envelope("package.upgrade", name="openssl"))
            refused = wait_for(lambda: controller.ends()[2:], "a rejection")[0]
            assert refused["state"] == "rejected"
            assert "allow-list" in refused["reason"]
            controller.command(b'{"not": "signed"}')
            event = wait_for(lambda: controller.of("event"), "an event about the forged command")[0]
            assert event["kind"] == "command_refused"
            wait_for(lambda: len(controller.full()) == 2, "the report of the one rescan that ran")


def test_the_broker_keeps_commands_for_an_absent_agent(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller), ThreadedProxy(broker.port) as proxy:
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{proxy.port}"], keys=controller.public_key)
        with AgentProcess(config):
            wait_for(controller.full, "a report")
            proxy.is_open = False
            proxy.cut()
            wait_for(lambda: controller.of("status")[-1]["state"] == "offline", "the will")
            controller.command(controller.envelope("rescan", command_id="waited"))
            assert controller.ends() == []
            proxy.is_open = True
            end = wait_for(controller.ends, "the command's end")[0]
            assert (end["command_id"], end["state"]) == ("waited", "succeeded")


def test_a_second_agent_cannot_use_the_state_folder(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"])
        with AgentProcess(config):
            wait_for(controller.full, "a report")
            argv = [sys.executable, "-m", "device_agent.main", "run", "--config", str(config)]
            second = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
            assert second.returncode == 3
            assert "another agent" in second.stderr
            assert "Traceback" not in second.stderr


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_both_protocol_versions_work(tmp_path: Path, protocol: str) -> None:
    certs = Certs(tmp_path / "certs")
    with broker_with_controller(certs) as (broker, controller):
        url = f"mqtts://127.0.0.1:{broker.tls_port}"
        config = write_config(tmp_path, [url], certs=certs, mqtt_more=f'protocol = "{protocol}"')
        with AgentProcess(config):
            wait_for(controller.heartbeats, "a heartbeat")
        level = {"5": "p5", "3.1.1": "p2"}[protocol]
        assert f"as {DEVICE} ({level}, c0" in broker.log


def test_report_needs_no_broker_and_no_configuration() -> None:
    argv = [sys.executable, "-m", "device_agent.main", "report"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100)
    report = REPORT.validate_python(json.loads(done.stdout))
    assert isinstance(report, FullReport)
    assert report.sections.os is not None
    assert done.stderr == ""


def test_the_memory_of_a_running_agent_stays_small(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"])
        with AgentProcess(config, is_light=False) as agent:
            wait_for(controller.heartbeats, "a heartbeat")
            pages = int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1])
            megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            assert megabytes < 45
