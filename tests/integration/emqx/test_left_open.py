"""What gets through after a cut is prevented, or said: topics with `$`, queued and delayed messages, auto_subscribe."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.tables import EmqxTables
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import ContainmentGoal, Subject
from controller.ports.broker import PlanParameters
from controller.ports.broker_tables import AccessRule, is_restriction, restriction
from schemas.topics import DownChannel, down
from tests.integration.emqx.conftest import USER, SavedRules
from tests.support.emqx_calls import PATIENT, publish, session_of, write_rules
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess

DENIED = 135
KNOWN = ("$SYS/x", "$queue/x", "$exclusive/x", "$file/x/init")


@pytest.fixture
async def lenient() -> AsyncIterator[tuple[StandInProcess, EmqxBroker]]:
    """A broker whose `no_match` is allow, and the adapter."""
    with StandInProcess(nodes=2, users=[USER], no_match="allow") as process:
        opened = open_emqx(process.api_urls, process.key, process.secret, clock=SystemClock(), limits=PATIENT)
        async with opened as broker:
            yield process, broker


async def test_prefixes_with_a_dollar_that_are_known_or_in_use_are_denied(
    lenient: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = lenient
    await write_rules(broker.api, "d-owner", (AccessRule("$rules/a", "allow", "all"),))
    await broker.api.send(requests.write_all_rules((AccessRule("$all/#", "allow", "subscribe"),)))
    with (
        Device("d-listener", [emqx.mqtt[0]], user=USER) as listener,
        Device("d-1", [emqx.mqtt[1]], user=USER) as device,
    ):
        assert await asyncio.to_thread(listener.subscribe, "$share/g/$foo/#") == 1
        assert await asyncio.to_thread(device.subscribe, "$own/#") == 1
        assert await broker.prefixes.refresh() == ""
        [
            _
            async for _ in EmqxTables(broker.api, broker.cluster, broker.prefixes).rules(
                emqx.api_urls[0], lambda _name: False
            )
        ]
        await broker.api.send(requests.delete_all_rules())

        proof = await broker.restrict(Subject.client("d-1"), saved)
        if not proof.holds:  # its own subscription named a prefix that the rules did not deny yet
            proof = await broker.restrict(Subject.client("d-1"), saved)
        assert proof.holds, proof.trouble
        for topic in (*KNOWN, "$foo/x", "$own/x", "$rules/x", "$all/x", "$delayed/1/$foo/x"):
            assert await asyncio.to_thread(device.publish, topic) == DENIED, topic
        for topic in ("$foo/#", "$SYS/#", "$share/g/$foo/#", "$own/#"):
            assert await asyncio.to_thread(device.subscribe, topic) == DENIED, topic
        (left,) = [text for text in proof.left_open if "`no_match` is allow" in text]
        assert "$foo" in left
        assert await asyncio.to_thread(device.publish, "$other/x") != DENIED, "what is said to be open is open"
    assert saved.calls == [()], "an extended restriction is not what the device had"


async def test_with_no_match_deny_nothing_is_left_open(broker: EmqxBroker, saved: SavedRules) -> None:
    with StandInProcess(users=[USER], no_match="deny") as process:
        opened = open_emqx(process.api_urls, process.key, process.secret, clock=SystemClock(), limits=PATIENT)
        async with opened as strict:
            proof = await strict.restrict(Subject.client("d-strict"), saved)
    assert proof.holds, proof.trouble
    assert proof.left_open == ()


async def test_messages_queued_for_an_absent_device_are_said_and_ended_by_a_kick(
    lenient: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = lenient
    device = Device("d-away", [emqx.mqtt[0]], user=USER, persistent=True).connect()
    try:
        assert await asyncio.to_thread(device.subscribe, "fleet/news") == 1
        device.close()
        for number in range(5):
            await publish(broker.api, "fleet/news", b"%d" % number)
        proof = await broker.restrict(Subject.client("d-away"), saved)
        assert any(text.startswith("5 messages that were queued") for text in proof.left_open), proof.left_open
        kicked = await broker.restrict(Subject.client("d-away"), saved, kick=True)
        assert not any("queued" in text for text in kicked.left_open)
        device.connect()
        await publish(broker.api, down("d-away", DownChannel.COMMAND), b"nobody")
        assert device.got("fleet/news") == []
    finally:
        device.close()


async def test_an_isolation_ends_a_session_that_waits_with_messages(
    lenient: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = lenient
    device = Device("d-queue", [emqx.mqtt[0]], user=USER, persistent=True).connect()
    assert await asyncio.to_thread(device.subscribe, down("d-queue", DownChannel.COMMAND)) == 1
    device.close()
    await publish(broker.api, down("d-queue", DownChannel.COMMAND), b"old")
    proof = await broker.isolate(Subject.client("d-queue"), saved, case="c", reason="r", until=time.time() + 60)
    assert proof.holds, proof.trouble
    assert await session_of(broker.api, "d-queue") is None


async def test_delayed_messages_and_auto_subscribe_are_said(
    lenient: tuple[StandInProcess, EmqxBroker], saved: SavedRules
) -> None:
    emqx, broker = lenient
    body = [{"topic": "fleet/all", "qos": 0}, {"topic": down("${clientid}", DownChannel.COMMAND), "qos": 1}]
    await broker.api.send(requests.json_request("PUT", "/mqtt/auto_subscribe", "configure", body=body))
    with Device("d-late", [emqx.mqtt[0]], user=USER) as device:
        assert await asyncio.to_thread(device.publish, "$delayed/600/fleet/later") != DENIED
        proof = await broker.restrict(Subject.client("d-late"), saved)
    assert any(text.startswith("1 `$delayed` messages") for text in proof.left_open), proof.left_open
    (given,) = [text for text in proof.left_open if text.startswith("auto_subscribe")]
    assert "fleet/all" in given
    assert "cordon/" not in given
    other = await broker.restrict(Subject.client("d-other"), saved)
    assert not any("`$delayed`" in text for text in other.left_open)


def test_the_plan_says_what_stays_open(broker: EmqxBroker) -> None:
    stages = broker.planned(Subject.client("d-plan"), PlanParameters(ContainmentGoal.RESTRICT))
    looks = {what: [call.path for call in calls] for stage in stages for what, calls in stage.looks}
    (said,) = [what for what in looks if what.startswith("what stays open")]
    assert all(word in said for word in ("`$`", "queued", "delayed", "auto_subscribe"))
    assert any(path.startswith("/api/v5/mqtt/delayed/messages") for path in looks[said])


def test_rules_that_deny_more_prefixes_are_a_restriction_and_rules_that_deny_less_are_not() -> None:
    assert is_restriction(restriction("a", ("$foo",)), "a")
    assert not is_restriction(restriction("a"), "a", ("$foo",))
    assert not is_restriction(restriction("a")[:3], "a")
    assert not is_restriction(restriction("b"), "a")
    assert not is_restriction((*restriction("a"), AccessRule("$x/#", "allow", "all")), "a")
    assert not is_restriction((*restriction("a"), AccessRule("$x/y/#", "deny", "all")), "a")
    assert not is_restriction(None, "a")
