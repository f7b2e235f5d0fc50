"""The session limit of a licence (CONNACK 151 of EMQX 6.x) is a reason of its own, for controller and agent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, write_config
from tests.support.mqtt_harness import plain, running
from tests.support.mqtt_probe import Endpoint, Probe
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually, wait_for

REASON = "the broker's licence allows no more sessions"


@pytest.fixture
def full() -> Iterator[StandInProcess]:
    """A broker whose licence has no session left."""
    with StandInProcess(emqx="6.3") as emqx:
        emqx.configure({"max_sessions": 1})
        first = Probe(Endpoint(*emqx.mqtt[0]), "first").enter()
        yield emqx
        first.close()


def test_a_known_client_gets_in(full: StandInProcess) -> None:
    again, other = (Probe(Endpoint(*full.mqtt[0]), name) for name in ("first", "other"))
    assert (again.connect().code, other.connect().code) == (0, 151)
    again.close()
    other.close()


async def test_the_controller_says_so(full: StandInProcess) -> None:
    async with running(plain(full.mqtt[0][1], protocol="5")) as here:
        await eventually(lambda: REASON in here.link.state.detail, lambda: here.link.state.detail)
        assert "151" in here.link.state.detail


def test_the_agent_says_so(full: StandInProcess, tmp_path: Path) -> None:
    with AgentProcess(write_config(tmp_path, [f"mqtt://127.0.0.1:{full.mqtt[0][1]}"])) as agent:
        wait_for(lambda: f"{REASON} (151)" in agent.log, "the reason is in the log")
