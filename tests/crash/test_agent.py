"""The agent killed at every step of one command after another, over one journal."""

import json
import signal
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_process import AgentProcess, FakeController, broker_with_controller, write_config
from tests.support.light_agent import STEPS
from tests.support.waiting import wait_for

ACTIONS = ("test.append", "test.once")
# Killed between its plan and its work, what must not be done twice is not even begun again: the operator decides.
GIVEN_UP = {("begin", "test.once"), ("plan", "test.once")}
QUIET_SECONDS = 0.3  # in which a second answer would have come, were there one


def _times_online(controller: FakeController) -> int:
    return sum(status["state"] == "online" for status in controller.of("status"))


def _is_online_again(controller: FakeController, times: int) -> bool:
    return _times_online(controller) > times


def _is_all_told(folder: Path) -> bool:
    return all(entry["told"] for entry in json.loads((folder / "state" / "commands.json").read_text())["entries"])


def _ends_of(controller: FakeController, command_id: str) -> list[dict[str, Any]]:
    return [end for end in controller.ends() if end["command_id"] == command_id]


def _name(step: str, action: str) -> str:
    return f"{step}-{action.replace('.', '-')}"


def _lines(folder: Path) -> int:
    done = folder / "done.txt"
    return len(done.read_text().splitlines()) if done.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_command_has_one_outcome_and_one_effect(tmp_path: Path) -> None:
    """Whatever step it dies in, the controller hears one and the same end, and nothing is done a second time."""
    with broker_with_controller() as (broker, controller):
        config = write_config(tmp_path, [f"mqtt://127.0.0.1:{broker.port}"], keys=controller.public_key)
        with AgentProcess(config) as agent:
            done = 0
            for step, action in product(STEPS, ACTIONS):
                command_id = _name(step, action)
                agent.end(signal.SIGKILL)
                agent.die_at = step
                back = partial(_is_online_again, controller, _times_online(controller))
                agent.start()
                wait_for(back, "the agent to be back")
                envelope = controller.envelope(action, command_id=command_id)
                controller.command(envelope)
                wait_for(lambda: agent.status is not None, f"the agent to be killed at {step}")
                assert agent.status == -9
                agent.die_at = ""
                agent.start()
                end = wait_for(partial(_ends_of, controller, command_id), command_id)[0]
                given_up = (step, action) in GIVEN_UP
                assert end["state"] == ("failed" if given_up else "succeeded"), end
                done += 0 if given_up else 1
                assert _lines(tmp_path) == done, command_id
                # Or the next kill would come while this one's end is told.
                wait_for(partial(_is_all_told, tmp_path), "the end to be confirmed")
            # The controller sends everything once more, as after a crash of its own: nothing runs, no end changes.
            before = {str(end["command_id"]): end for end in controller.ends()}
            for step, action in product(STEPS, ACTIONS):
                controller.command(controller.envelope(action, command_id=_name(step, action)))
            wait_for(lambda: len(controller.ends()) >= 2 * len(before), "every end, told again")
            time.sleep(QUIET_SECONDS)
            assert all(end == before[str(end["command_id"])] for end in controller.ends())
            assert len(before) == len(STEPS) * len(ACTIONS)
            assert _lines(tmp_path) == done
