"""Two controllers on one PostgreSQL: whoever is asked, the leader does it; when it dies the other one goes on."""

import signal
import time
from pathlib import Path

import pytest

from controller.api.client import ApiResponseError
from controller.ports.broker_tables import restriction
from tests.soak.cluster import Cluster, Member, open_cluster
from tests.support.certs import Certs
from tests.support.deployment import WAIT_SECONDS, Timings
from tests.support.emqx_calls import rules_of
from tests.support.operator import OperatorClient
from tests.support.postgres import WHEEL, PostgresServers
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(300)]

FIRST, SECOND, THIRD = "dev-001", "dev-002", "dev-003"
_TAKEN_OVER_SECONDS = 15.0


def _operator(member: Member) -> OperatorClient:
    assert member.operator is not None
    return member.operator


async def _leader_name(operator: OperatorClient) -> str:
    rows = (await operator.call("GET", "/controllers"))["items"]
    return next((row["name"] for row in rows if row["is_leader"]), "")


async def _roles(cluster: Cluster) -> tuple[Member, Member]:
    """The leader and the other one."""
    name = await _leader_name(_operator(cluster.members[0]))
    leader = next(one for one in cluster.members if one.name == name)
    return leader, next(one for one in cluster.members if one is not leader)


async def _until(operator: OperatorClient, device_id: str, level: str) -> None:
    async def is_so() -> bool:
        row = await operator.device(device_id)
        return bool(row["level"] == level and (row["case"] is None or row["case"]["proven"]))

    await eventually(is_so, f"{device_id} is {level}, and proven so", seconds=WAIT_SECONDS)


async def test_either_controller_serves_and_the_other_takes_over(
    tmp_path: Path, emqx: StandInProcess, certs: Certs, postgres_servers: PostgresServers
) -> None:
    server = postgres_servers[WHEEL]
    async with open_cluster(tmp_path, server, emqx, certs, 2, Timings(stale_after="30s")) as cluster:
        fleet = await cluster.start_fleet(3)
        leader, other = await _roles(cluster)
        await fleet.change(SECOND, {"open_port": 23})
        for member in cluster.members:
            await _until(_operator(member), SECOND, "restricted")
        assert await rules_of(cluster.broker.api, SECOND) == restriction(SECOND)
        await _through_the_follower(_operator(other), cluster)
        command = await _held_command(_operator(other))
        seconds = await _kill(leader, other)
        assert seconds < _TAKEN_OVER_SECONDS
        await _goes_on(_operator(other), command)
        await fleet.change(FIRST, {"open_port": 2375})
        await _until(_operator(other), FIRST, "isolated")


async def _through_the_follower(operator: OperatorClient, cluster: Cluster) -> None:
    """An operator's decisions are carried out and proven, and the answer waits for it."""
    body = {"level": "restricted", "reason": "a test"}
    made = await operator.call("PUT", f"/quarantine/{THIRD}?wait=20", body)
    assert (made["level"], made["proof"]) == ("restricted", "proven")
    assert await rules_of(cluster.broker.api, THIRD) == restriction(THIRD)
    released = await operator.call("POST", f"/quarantine/{THIRD}/release?wait=20", {"reason": "it is over"})
    assert (released["level"], released["proof"]) == ("none", "proven")
    assert await rules_of(cluster.broker.api, THIRD) == ()
    lines = (await operator.call("GET", f"/audit?device_id={THIRD}&kind=containment.release_decided"))["items"]
    assert len(lines) == 1


async def _held_command(operator: OperatorClient) -> str:
    """A command that waits for a second signature."""
    body = {"device_id": THIRD, "action": "service.disable", "params": {"name": "telnetd"}, "hold": True}
    made = await operator.call("POST", "/commands", body)
    command_id: str = made["command_id"]
    assert (await operator.call("GET", f"/approvals/{command_id}"))["state"] == "open"
    return command_id


async def _kill(leader: Member, other: Member) -> float:
    """Returns the seconds until the other one leads and carries out what operators ask of it."""
    begun = time.monotonic()
    leader.signal(signal.SIGKILL)

    async def leads() -> bool:
        return await _leader_name(_operator(other)) == other.name

    await eventually(leads, "the other one leads", seconds=WAIT_SECONDS)
    return time.monotonic() - begun


async def _goes_on(operator: OperatorClient, command_id: str) -> None:
    """What waited for a person with the leader that died waits with this one."""

    async def is_open() -> bool:
        try:
            return bool((await operator.call("GET", f"/approvals/{command_id}"))["state"] == "open")
        except ApiResponseError as e:
            if e.code != "no_leader":
                raise
            return False

    await eventually(is_open, "the new leader has the request", seconds=WAIT_SECONDS)
    await operator.call("POST", f"/commands/{command_id}/withdraw", {"reason": "not any more"})
    assert (await operator.call("GET", f"/approvals/{command_id}"))["state"] == "withdrawn"
