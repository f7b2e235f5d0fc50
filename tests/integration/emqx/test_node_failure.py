"""A node dies in the middle: the plan continues over the others, and the proof says which node did not answer."""

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from controller.adapters.emqx.containment.broker import open_emqx
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import AccessRules, restriction
from controller.ports.errors import BrokerUnreachableError
from tests.integration.emqx.conftest import USER, SavedRules
from tests.support.emqx_calls import PATIENT, rules_of
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually, wait_for

BANNED = 138


@pytest.fixture
def cluster() -> Iterator[StandInProcess]:
    """Three nodes for one test, which kills some."""
    with StandInProcess(nodes=3, users=[USER]) as process:
        yield process


async def test_a_node_killed_in_the_middle_of_a_restriction(cluster: StandInProcess) -> None:
    async with open_emqx(cluster.api_urls, cluster.key, cluster.secret, clock=SystemClock(), limits=PATIENT) as broker:
        assert all(up for _, up, _ in await broker.ping())

        async def keep_and_kill(rules: AccessRules) -> None:
            await asyncio.to_thread(cluster.kill_node, cluster.names[0])
            await eventually(lambda: not _listens(cluster.mqtt[0]), "the node to be gone")

        with Device("n-mid", [cluster.mqtt[2]], user=USER) as device:
            proof = await broker.restrict(Subject.client("n-mid"), keep_and_kill)
            assert proof.holds, proof.missing
            assert await asyncio.to_thread(device.publish, "fleet/telemetry") == 135
        dead = cluster.api_urls[0]
        assert any(step.what == "node not running" and step.node == dead for step in proof.steps)
        assert {step.node for step in proof.steps if step.what == "rules read back"} == set(cluster.api_urls[1:])
        assert [up for _, up, _ in await broker.ping()] == [False, True, True]


async def test_a_node_dead_from_the_start_is_excused_once_all_running_nodes_answered(
    cluster: StandInProcess, saved: SavedRules
) -> None:
    cluster.kill_node(cluster.names[1])
    wait_for(lambda: not _listens(cluster.mqtt[1]), "the node to be gone")
    async with open_emqx(cluster.api_urls, cluster.key, cluster.secret, clock=SystemClock(), limits=PATIENT) as broker:
        device = Device("n-dead", [cluster.mqtt[0], cluster.mqtt[2]], user=USER, reconnects=True).connect()
        try:
            proof = await broker.isolate(Subject.client("n-dead"), saved, case="c", reason="r", until=time.time() + 60)
            assert proof.holds, proof.missing
            seen = len(device.connacks)
            wait_for(lambda: len(device.connacks) > seen + 4, "refused")
            assert set(device.connacks[seen + 1 :]) == {BANNED}
        finally:
            device.close()
        assert await rules_of(broker.api, "n-dead") == restriction("n-dead")
        assert (await broker.release(Subject.client("n-dead"), ())).holds


async def test_an_address_that_is_silent_while_its_node_runs_is_missing(
    cluster: StandInProcess, saved: SavedRules
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        wrong = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        addresses = [*cluster.api_urls[:2], wrong]
        async with open_emqx(addresses, cluster.key, cluster.secret, clock=SystemClock(), limits=PATIENT) as broker:
            proof = await broker.restrict(Subject.client("n-silent"), saved)
            assert proof.is_partial
            assert [one.node for one in proof.unread] == [cluster.names[2]]
            assert wrong in proof.unread[0].reason
            assert await rules_of(broker.api, "n-silent") == restriction("n-silent")


async def test_no_node_at_all_is_an_error_and_nothing_was_done(cluster: StandInProcess, saved: SavedRules) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        wrong = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with open_emqx([wrong], cluster.key, cluster.secret, clock=SystemClock(), limits=PATIENT) as broker:
            with pytest.raises(BrokerUnreachableError):
                await broker.restrict(Subject.client("n-none"), saved)
            assert saved.calls == []


def _listens(where: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(where) == 0
