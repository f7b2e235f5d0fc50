"""Users with sessions on several nodes, seen from their devices, over the stand-in."""

import asyncio
import time

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.adapters.emqx.containment.steps import restriction_of
from controller.domain.containment.plan import ContainmentGoal, Subject, SubjectKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import PlanParameters, SavedSubscription
from controller.ports.broker_tables import AccessRule, AccessRules
from schemas.topics import DownChannel, UpChannel, down, up
from tests.integration.emqx.conftest import USER, SavedRules
from tests.integration.emqx.plans import calls_not_in_plan
from tests.support.emqx_calls import delete_rules, subscriptions_of, write_rules
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

BANNED, DENIED, NOBODY = 138, 135, 16
NAME = USER[0]
LAB = Subject.user(NAME)


async def _rules(broker: EmqxBroker) -> AccessRules:
    rules = await broker.api.send(requests.read_rules(LAB))
    return rules or ()


async def test_a_banned_user_loses_its_sessions_on_every_node(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    devices = [Device(f"u-ban-{n}", [emqx.mqtt[n]], user=USER, reconnects=True).connect() for n in (0, 2)]
    away = Device("u-ban-away", [emqx.mqtt[1]], user=USER, persistent=True).connect()
    try:
        await asyncio.to_thread(away.subscribe, "fleet/news")
        away.close()
        assert {one.client_id for one in await broker.sessions(NAME)} >= {"u-ban-0", "u-ban-2", "u-ban-away"}
        proof = await broker.isolate(LAB, saved, case="c1", reason="stolen", until=time.time() + 60)
        assert proof.holds, proof.missing
        assert calls_not_in_plan(proof, broker.planned(LAB, PlanParameters(ContainmentGoal.ISOLATE))) == set()
        for device in devices:
            wait_for(lambda each=device: each.disconnects != [], "the cut")  # type: ignore[misc]  # a default binds it
            seen = len(device.connacks)
            wait_for(lambda each=device, n=seen: len(each.connacks) > n + 3, "refused")  # type: ignore[misc]
            assert set(device.connacks[seen + 1 :]) == {BANNED}
        assert await broker.sessions(NAME) == ()
        assert await broker.missing(LAB, ContainmentLevel.ISOLATED) == []
    finally:
        for device in devices:
            device.close()
    ended = await broker.end_isolation(LAB, saved)
    assert ended.holds, ended.missing
    with Device("u-ban-0", [emqx.mqtt[1]], user=USER) as back:
        assert back.connacks == [0]
        assert await asyncio.to_thread(back.publish, "fleet/telemetry") == DENIED
        assert await asyncio.to_thread(back.publish, up("u-ban-0", UpChannel.POSTURE)) in {0, NOBODY}
        released = await broker.release(LAB, ())
        assert released.holds, released.missing
        assert calls_not_in_plan(released, broker.planned(LAB, PlanParameters(ContainmentGoal.RELEASE))) == set()
        assert await asyncio.to_thread(back.publish, "fleet/telemetry") in {0, NOBODY}
    assert await _rules(broker) == ()


async def test_a_restricted_user_keeps_each_sessions_own_branch(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    had = (AccessRule("fleet/#", "allow", "all"),)
    await broker.api.send(requests.write_rules(LAB, had))
    with Device("u-r-1", [emqx.mqtt[0]], user=USER) as one, Device("u-r-2", [emqx.mqtt[2]], user=USER) as two:
        for device in (one, two):
            assert await asyncio.to_thread(device.publish, "fleet/telemetry") in {0, NOBODY}
            assert await asyncio.to_thread(device.subscribe, "fleet/news") == 1
            assert await asyncio.to_thread(device.subscribe, down(device.client_id, DownChannel.COMMAND)) == 1
        proof = await broker.restrict(LAB, saved)
        assert proof.holds, proof.missing
        assert calls_not_in_plan(proof, broker.planned(LAB, PlanParameters(ContainmentGoal.RESTRICT))) == set()
        assert saved.calls == [had]
        assert await _rules(broker) == restriction_of(LAB)
        for device in (one, two):
            assert device.disconnects == []
            assert await asyncio.to_thread(device.publish, "fleet/telemetry") == DENIED
            assert await subscriptions_of(broker.api, device.client_id) == (
                down(device.client_id, DownChannel.COMMAND),
            )
        assert await broker.missing(LAB, ContainmentLevel.RESTRICTED) == []
        # EMQX consults a client's rules before its user's: the proof says so.
        await write_rules(broker.api, "u-r-1", had)
        assert any(
            "u-r-1: has rules of its own" in text for text in await broker.missing(LAB, ContainmentLevel.RESTRICTED)
        )
        await delete_rules(broker.api, "u-r-1")
        assert (await broker.release(LAB, had)).holds
        assert await _rules(broker) == had
    await broker.api.send(requests.delete_rules(LAB))


async def test_the_broker_says_what_a_certificate_names(broker: EmqxBroker) -> None:
    assert await broker.named_by_certificate() <= {SubjectKind.CLIENT, SubjectKind.USER}


async def test_live_sessions_of_a_released_user_get_their_subscriptions_back(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    cut: list[SavedSubscription] = []

    async def keep(subscriptions: tuple[SavedSubscription, ...]) -> None:
        cut.extend(subscriptions)

    one = Device("u-s-1", [emqx.mqtt[0]], user=USER).connect()
    gone = Device("u-s-2", [emqx.mqtt[2]], user=USER).connect()
    away = Device("u-s-3", [emqx.mqtt[1]], user=USER, persistent=True).connect()
    try:
        for device in (one, gone, away):
            assert await asyncio.to_thread(device.subscribe, "fleet/news") == 1
        assert await asyncio.to_thread(one.subscribe, "fleet/own") == 1
        away.close()
        proof = await broker.restrict(LAB, saved, save_subscriptions=keep)
        assert proof.holds, proof.missing
        assert {(row.client, row.topic) for row in cut} == {
            ("u-s-1", "fleet/news"), ("u-s-1", "fleet/own"), ("u-s-2", "fleet/news"), ("u-s-3", "fleet/news")
        }  # fmt: skip
        gone.close()
        with Device("u-s-2", [emqx.mqtt[2]], user=USER):  # a later session under the same id
            released = await broker.release(LAB, (), tuple(cut))
            assert released.holds, released.missing
            planned = broker.planned(LAB, PlanParameters(ContainmentGoal.RELEASE, subscriptions=tuple(cut)))
            assert calls_not_in_plan(released, planned) == set()
            assert await subscriptions_of(broker.api, "u-s-2") == ()
        assert set(await subscriptions_of(broker.api, "u-s-1")) == {"fleet/news", "fleet/own"}
        assert await subscriptions_of(broker.api, "u-s-3") == ("fleet/news",)
        told = {step.what: step.answer for step in released.steps}
        assert told["subscriptions given back"] == "3 of 4 that were cut; 1 of 3 sessions are gone"
        assert await asyncio.to_thread(one.publish, "fleet/news", b"hello") == 0
        wait_for(lambda: one.got("fleet/news") == [b"hello"], "the message arrives again")
    finally:
        one.close()
        gone.close()
