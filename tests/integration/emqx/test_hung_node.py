"""A node that hangs delays nothing that protects a device at another node, and the proof says what was not read."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.http import HttpLimits
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import AccessRules
from schemas.topics import DownChannel, UpChannel, down, up
from tests.integration.emqx.conftest import USER, SavedRules
from tests.support.emqx_calls import publish, session_of
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

DENIED, BANNED, KICKED = 135, 138, 152
GIVEN_UP_SECONDS, POLL_SECONDS = 30.0, 0.1
# Longer than in production, so that a busy machine is not taken for a hung node.
LIMITS = HttpLimits(prompt_attempt_seconds=1.0, prompt_call_seconds=5.0)
HUNG = 0  # the address that is asked first


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[StandInProcess, EmqxBroker]]:
    """Three nodes for one test, one of which hangs, and the adapter over all of them."""
    with StandInProcess(nodes=3, users=[USER]) as process:
        async with open_emqx(
            process.api_urls, process.key, process.secret, clock=SystemClock(), limits=LIMITS
        ) as broker:
            yield process, broker


async def test_a_device_at_a_healthy_node_is_restricted_and_keeps_its_queued_commands(
    cluster: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = cluster
    device = Device("h-kept", [emqx.mqtt[2]], user=USER, persistent=True).connect()
    try:
        assert await asyncio.to_thread(device.subscribe, "fleet/news") == 1
        assert await asyncio.to_thread(device.subscribe, down("h-kept", DownChannel.COMMAND)) == 1
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") != DENIED  # from now on in the cache
        await asyncio.to_thread(emqx.hang_node, HUNG)
        begun = time.monotonic()

        proof = await broker.restrict(Subject.client("h-kept"), saved)

        seconds = time.monotonic() - begun
        print(f"cut {time.time() - proof.cut_at:.3f} s before it was read back, which took {seconds:.3f} s")
        assert not proof.holds
        assert proof.is_partial, proof.missing
        assert [one.node for one in proof.unread] == [emqx.names[HUNG]]
        assert "no answer in time" in proof.unread[0].reason
        assert {step.node for step in proof.steps if step.what == "rules read back"} == set(emqx.api_urls[1:])
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") == DENIED
        assert await asyncio.to_thread(device.subscribe, "fleet/news") == DENIED
        assert device.disconnects == []
        assert await asyncio.to_thread(device.publish, up("h-kept", UpChannel.POSTURE), b"report") != DENIED
        device.close()
        assert await publish(broker.api, down("h-kept", DownChannel.COMMAND), b"repair")
        device.connect()
        wait_for(lambda: device.got(down("h-kept", DownChannel.COMMAND)) == [b"repair"], "the queued command")
    finally:
        device.close()


async def test_a_device_at_a_healthy_node_is_isolated(
    cluster: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = cluster
    with Device("h-out", [emqx.mqtt[2]], user=USER) as device:
        await asyncio.to_thread(emqx.hang_node, HUNG)
        proof = await broker.isolate(Subject.client("h-out"), saved, case="c", reason="r", until=time.time() + 60)
        wait_for(lambda: device.disconnects == [KICKED], "the cut")
    assert proof.is_partial, proof.missing
    assert [one.node for one in proof.unread] == [emqx.names[HUNG]]


async def test_a_kick_takes_effect_although_it_is_not_answered(
    cluster: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = cluster
    with Device("h-kick", [emqx.mqtt[1]], user=USER) as device:
        await asyncio.to_thread(emqx.hang_node, HUNG)
        proof = await broker.restrict(Subject.client("h-kick"), saved, kick=True)
        wait_for(lambda: device.disconnects == [KICKED], "the kick")
    assert proof.is_partial, proof.missing


async def test_a_device_at_the_hung_node_is_said_to_be_unread(
    cluster: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = cluster
    with Device("h-there", [emqx.mqtt[HUNG]], user=USER):
        await asyncio.to_thread(emqx.hang_node, HUNG)
        proof = await broker.restrict(Subject.client("h-there"), saved)
        assert proof.is_partial, proof.missing
        assert [one.node for one in proof.unread] == [emqx.names[HUNG]]
        assert any(
            step.what == "subscriptions and cache read back" and "not read" in step.answer for step in proof.steps
        )


async def test_sessions_of_a_user_at_healthy_nodes_are_ended(
    cluster: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = cluster
    with Device("h-user-1", [emqx.mqtt[1]], user=USER) as one, Device("h-user-2", [emqx.mqtt[2]], user=USER) as two:
        await asyncio.to_thread(emqx.hang_node, HUNG)
        proof = await broker.isolate(Subject.user(USER[0]), saved, case="c", reason="r", until=time.time() + 60)
        wait_for(lambda: one.disconnects == two.disconnects == [KICKED], "both kicks")
    assert proof.is_partial, proof.missing


async def test_a_controller_that_starts_meanwhile_knows_how_devices_are_authenticated(
    cluster: tuple[StandInProcess, EmqxBroker],
) -> None:
    emqx, broker = cluster
    expected = await broker.auth_strength("h-known")
    with Device("h-known", [emqx.mqtt[1]], user=USER):
        known = await broker.auth_strength("h-known")
        await asyncio.to_thread(emqx.hang_node, HUNG)
        async with open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=LIMITS) as started:
            assert await started.auth_strength("h-known") is known
            assert known is not expected, "the session is read, not only the settings"


async def test_the_next_attempt_is_proven_once_the_node_is_given_up(
    cluster: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = cluster

    async def hang(_rules: AccessRules) -> None:
        await asyncio.to_thread(emqx.hang_node, HUNG, 3.0)

    assert (await broker.restrict(Subject.client("h-later"), hang)).is_partial

    async def is_given_up() -> bool:
        cluster = await broker.api.on_node(emqx.api_urls[1]).send(requests.read_cluster())
        return emqx.names[HUNG] not in cluster.nodes

    async with asyncio.timeout(GIVEN_UP_SECONDS):
        while not await is_given_up():
            await asyncio.sleep(POLL_SECONDS)
    proof = await broker.restrict(Subject.client("h-later"), saved)
    assert proof.holds, proof.trouble
    assert any(step.what == "node not running" and step.node == emqx.api_urls[HUNG] for step in proof.steps)
    assert await session_of(broker.api, "h-later") is None


async def test_a_running_node_whose_address_nobody_configured_makes_the_proof_partial(saved: SavedRules) -> None:
    with StandInProcess(nodes=3, users=[USER]) as emqx:
        async with open_emqx(emqx.api_urls[:2], emqx.key, emqx.secret, clock=SystemClock(), limits=LIMITS) as broker:
            proof = await broker.restrict(Subject.client("h-unnamed"), saved)
            assert proof.is_partial
            assert [(one.node, one.reason) for one in proof.unread] == [
                (emqx.names[2], "no API address of it is configured")
            ]
            assert emqx.names[2] in proof.trouble
