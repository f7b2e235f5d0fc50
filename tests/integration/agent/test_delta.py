"""Deltas over a real broker, to controllers that support them and to one that does not."""

from pathlib import Path

from tests.support.agent_process import DEVICE, AgentProcess, FakeController, broker_with_controller, write_config
from tests.support.waiting import wait_for


def _quick(tmp_path: Path, controller: FakeController, port: int) -> Path:
    config = write_config(tmp_path, [f"mqtt://127.0.0.1:{port}"], keys=controller.public_key)
    config.write_text(config.read_text().replace('scan_every = "1h"', 'scan_every = "200ms"'))
    # Long enough that a delta is shorter than the report.
    (tmp_path / "more.txt").write_text("yes")
    return config


def test_deltas_are_sent_until_a_full_report_is_requested(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        controller.reads_deltas = True
        with AgentProcess(_quick(tmp_path, controller, broker.port)) as agent:
            first = wait_for(controller.full, "a full report")[0]
            wait_for(controller.heartbeats, "a heartbeat")
            (tmp_path / "posture.txt").write_text("second")
            delta = wait_for(controller.deltas, "a delta")[0]
            assert delta["base"] == first["digest"]
            assert set(delta["sections"]) == {"os"}
            wait_for(lambda: controller.heartbeats()[-1]["digest"] == delta["digest"], "a heartbeat of the new state")
            controller.verdict = None
            (tmp_path / "posture.txt").write_text("third")
            second = wait_for(lambda: controller.deltas()[1:], "another delta")[0]
            assert second["base"] == delta["digest"]
            controller.verdict = "accepted"
            controller.receipt(DEVICE, second["seq"], "resend_full")
            whole = wait_for(lambda: controller.full()[1:], "the full report that was asked for")[0]
            assert whole["digest"] == second["digest"]
            assert set(whole["sections"]) == {"os", "sockets"}
            assert len(controller.full()) == 2
            assert "Traceback" not in agent.log


def test_a_controller_that_knows_no_deltas_gets_full_reports(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller), AgentProcess(_quick(tmp_path, controller, broker.port)):
        wait_for(controller.heartbeats, "a heartbeat")
        (tmp_path / "posture.txt").write_text("second")
        whole = wait_for(lambda: controller.full()[1:], "a full report instead of the delta")[0]
        (refused,) = controller.deltas()
        assert whole["digest"] == refused["digest"]
        wait_for(lambda: controller.heartbeats()[-1]["digest"] == whole["digest"], "a heartbeat of the new state")
        (tmp_path / "posture.txt").write_text("third")
        wait_for(lambda: controller.full()[2:], "the next full report")
        assert len(controller.deltas()) == 1
