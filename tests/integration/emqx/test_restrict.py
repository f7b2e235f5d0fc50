"""Restriction and release, seen from the device, over the stand-in's three nodes."""

import asyncio
import time

import pytest

from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import AccessRule, restriction
from controller.ports.errors import BrokerRefusedError
from schemas.topics import DownChannel, UpChannel, down, up
from tests.integration.emqx.conftest import USER, SavedRules
from tests.support.emqx_calls import (
    clients_with_rules,
    delete_rules,
    publish,
    rules_of,
    session_of,
    subscriptions_of,
    write_rules,
)
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

DENIED = 135
NOBODY = 16


async def test_a_restricted_device_reaches_its_own_branch_and_nothing_else(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    with Device("r-own", [emqx.mqtt[2]], user=USER) as device, Device("r-other", [emqx.mqtt[0]], user=USER) as other:
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") in {0, NOBODY}
        assert await asyncio.to_thread(device.subscribe, "fleet/news") == 1
        assert await asyncio.to_thread(device.subscribe, "$share/g/fleet/work") == 1
        assert await asyncio.to_thread(device.subscribe, down("r-own", DownChannel.COMMAND)) == 1
        assert await asyncio.to_thread(other.subscribe, up("r-own", UpChannel.POSTURE)) == 1

        before = time.time()
        proof = await broker.restrict(Subject.client("r-own"), saved)

        assert proof.holds, proof.missing
        assert before <= proof.cut_at <= time.time()
        assert saved.calls == [()]
        for url in emqx.api_urls:
            assert await rules_of(broker.api.on_node(url), "r-own") == restriction("r-own")
        assert await subscriptions_of(broker.api, "r-own") == (down("r-own", DownChannel.COMMAND),)
        # What was allowed and cached before is denied, on the same connection.
        assert device.disconnects == []
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") == DENIED
        assert await asyncio.to_thread(device.subscribe, "fleet/news") == DENIED
        assert await asyncio.to_thread(device.publish, up("r-other", UpChannel.POSTURE)) == DENIED
        assert await asyncio.to_thread(device.subscribe, down("r-other", DownChannel.COMMAND)) == DENIED
        await asyncio.to_thread(other.publish, "fleet/news", b"not for you")
        assert await asyncio.to_thread(device.publish, up("r-own", UpChannel.POSTURE), b"report") == 0
        wait_for(lambda: other.got(up("r-own", UpChannel.POSTURE)) == [b"report"], "the report")
        assert await publish(broker.api, down("r-own", DownChannel.COMMAND), b"repair")
        wait_for(lambda: device.got(down("r-own", DownChannel.COMMAND)) == [b"repair"], "the command")
        assert device.got("fleet/news") == []


async def test_a_release_restores_the_saved_rules(emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules) -> None:
    had = (
        AccessRule("fleet/telemetry", "allow", "publish", qos=(1,), retain="false"),
        AccessRule("eq fleet/+", "allow", "subscribe"),
        AccessRule("fleet/#", "deny", "all"),
    )
    await write_rules(broker.api, "r-saved", had)
    with Device("r-saved", [emqx.mqtt[1]], user=USER) as device:
        assert (await broker.restrict(Subject.client("r-saved"), saved)).holds
        assert saved.calls == [had]
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") == DENIED

        again = await broker.restrict(Subject.client("r-saved"), saved)
        assert again.holds
        assert saved.calls == [had], "a repeated restriction keeps nothing: its own rules are not the device's"

        proof = await broker.release(Subject.client("r-saved"), had)
        assert proof.holds, proof.missing
        for url in emqx.api_urls:
            assert await rules_of(broker.api.on_node(url), "r-saved") == had
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") == NOBODY
        assert await asyncio.to_thread(device.publish, "fleet/else") == DENIED
        assert device.disconnects == [], "a release kicks nobody"
    await delete_rules(broker.api, "r-saved")


async def test_a_release_without_saved_rules_leaves_none_and_may_be_repeated(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    with Device("r-none", [emqx.mqtt[0]], user=USER) as device:
        await broker.restrict(Subject.client("r-none"), saved)
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") == DENIED
        assert (await broker.release(Subject.client("r-none"), ())).holds
        assert (await broker.release(Subject.client("r-none"), ())).holds
        assert "r-none" not in await clients_with_rules(broker.api)
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") == NOBODY


async def test_rules_changed_by_others_are_left(broker: EmqxBroker, saved: SavedRules) -> None:
    foreign = (AccessRule("only/this", "allow", "all"),)
    await broker.restrict(Subject.client("r-changed"), saved)
    await write_rules(broker.api, "r-changed", foreign)

    proof = await broker.release(Subject.client("r-changed"), ())

    assert proof.holds
    assert await rules_of(broker.api, "r-changed") == foreign
    assert any(step.what == "rules left" for step in proof.steps)
    await delete_rules(broker.api, "r-changed")


async def test_an_absent_persistent_session_is_restricted(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    device = Device("r-away", [emqx.mqtt[0], emqx.mqtt[1]], user=USER, persistent=True).connect()
    try:
        assert await asyncio.to_thread(device.subscribe, "fleet/news") == 1
        assert await asyncio.to_thread(device.subscribe, down("r-away", DownChannel.COMMAND)) == 1
        device.close()

        proof = await broker.restrict(Subject.client("r-away"), saved)
        assert proof.holds, proof.missing
        assert await subscriptions_of(broker.api, "r-away") == (down("r-away", DownChannel.COMMAND),)
        await publish(broker.api, "fleet/news", b"while away")
        assert await publish(broker.api, down("r-away", DownChannel.COMMAND), b"repair")

        device.connect()
        await publish(broker.api, "fleet/news", b"after")
        wait_for(lambda: device.got(down("r-away", DownChannel.COMMAND)) == [b"repair"], "the queued command")
        assert device.got("fleet/news") == []
    finally:
        device.close()
        await broker.release(Subject.client("r-away"), ())


async def test_an_unknown_device_is_restricted_before_it_connects(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    assert (await broker.restrict(Subject.client("r-future"), saved)).holds
    assert await session_of(broker.api, "r-future") is None
    with Device("r-future", [emqx.mqtt[1]], user=USER) as device:
        assert await asyncio.to_thread(device.publish, "fleet/telemetry") == DENIED
        assert await session_of(broker.api, "r-future") is not None
    await broker.release(Subject.client("r-future"), ())


@pytest.mark.parametrize("client_id", ["", "+", "#", "a/b", "..", ".", "a b", "x" * 65, "${clientid}"])
async def test_a_client_id_that_would_match_others_is_refused(
    broker: EmqxBroker, saved: SavedRules, client_id: str
) -> None:
    with pytest.raises(BrokerRefusedError):
        await broker.restrict(Subject.client(client_id), saved)
    with pytest.raises(BrokerRefusedError):
        await broker.isolate(Subject.client(client_id), saved, case="c", reason="r", until=None)
    with pytest.raises(BrokerRefusedError):
        await broker.release(Subject.client(client_id), ())
    assert saved.calls == []


async def test_every_step_is_in_the_proof(emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules) -> None:
    proof = await broker.restrict(Subject.client("r-steps"), saved)
    calls = [step.call.split("?")[0] for step in proof.steps if step.call]
    assert any(call.startswith("PUT ") for call in calls)
    read_back = {step.node for step in proof.steps if step.what == "rules read back"}
    assert read_back == set(emqx.api_urls)
    assert all(step.answer for step in proof.steps)
    assert all(step.seconds >= 0 for step in proof.steps)
    await broker.release(Subject.client("r-steps"), ())
