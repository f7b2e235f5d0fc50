"""An agent killed during a command: after its restart the result is published, and nothing is done twice."""

from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, broker_with_controller, write_config
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("step", "action", "state", "reason", "lines"),
    [
        ("received", "test.append", "succeeded", "", 1),
        ("received", "test.once", "succeeded", "", 1),
        ("begin", "test.append", "succeeded", "", 1),
        ("begin", "test.once", "failed", "interrupted", 0),
        ("plan", "test.append", "succeeded", "", 1),
        ("plan", "test.once", "failed", "interrupted", 0),
        ("apply", "test.append", "succeeded", "reached before the agent was interrupted", 1),
        ("apply", "test.once", "succeeded", "reached before the agent was interrupted", 1),
        ("finish", "test.append", "succeeded", "", 1),
        ("finish", "test.once", "succeeded", "", 1),
    ],
)
def test_the_result_is_published_after_a_kill_at_each_step(
    tmp_path: Path, step: str, action: str, state: str, reason: str, lines: int
) -> None:
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        with AgentProcess(config, die_at=step) as agent:
            wait_for(controller.full, "a report")
            envelope = controller.envelope(action, command_id="kill-me")
            controller.command(envelope)
            wait_for(lambda: agent.status is not None, "the agent to be killed")
            assert agent.status == -9
            assert controller.ends() == []
            agent.die_at = ""
            agent.start()
            end = wait_for(controller.ends, "the outcome")[0]
            assert (end["command_id"], end["state"], end["reason"]) == ("kill-me", state, reason)
            # The controller repeats a command without a result: it gets the same result and nothing runs.
            known = len(controller.ends())
            controller.command(envelope)
            wait_for(lambda: len(controller.ends()) > known, "the outcome, told again")
            assert {tuple(e.items()) for e in map(_flat, controller.ends())} == {tuple(_flat(end).items())}
            done = tmp_path / "done.txt"
            assert (len(done.read_text().splitlines()) if done.exists() else 0) == lines


def test_a_counter_is_accepted_only_once_even_after_a_kill(tmp_path: Path) -> None:
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        old = controller.envelope("test.append", command_id="older")
        with AgentProcess(config, die_at="begin") as agent:
            wait_for(controller.full, "a report")
            controller.command(controller.envelope("test.append", command_id="newer"))
            wait_for(lambda: agent.status is not None, "the agent to be killed")
            agent.die_at = ""
            agent.start()
            wait_for(lambda: [e for e in controller.ends() if e["command_id"] == "newer"], "the newer command's end")
            controller.command(old)
            end = wait_for(lambda: [e for e in controller.ends() if e["command_id"] == "older"], "the replay's end")[0]
            assert end["state"] == "rejected"
            assert "counter" in end["reason"]


def _flat(end: dict[str, object]) -> dict[str, object]:
    return {**end, "detail": str(end["detail"])}
