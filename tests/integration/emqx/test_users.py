"""Users with live sessions on several nodes, seen from their devices, over the stand-in."""

import asyncio
import time

import pytest

from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.adapters.emqx.users.actions import USER_RESTRICTION
from controller.adapters.emqx.users.broker import EmqxUsers
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import ContainmentGoal, SubjectKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import PlanParameters
from controller.ports.broker_tables import AccessRule
from schemas.topics import DownChannel, UpChannel, down, up
from tests.integration.emqx.conftest import USER, Kept
from tests.integration.emqx.plans import calls_not_in_plan
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

BANNED, DENIED, NOBODY = 138, 135, 16
NAME = USER[0]


@pytest.fixture
def users(broker: EmqxBroker) -> EmqxUsers:
    """The adapter for users over the same API."""
    return EmqxUsers(broker.api, SystemClock())


async def test_a_banned_user_loses_its_sessions_on_every_node(
    emqx: StandInProcess, broker: EmqxBroker, users: EmqxUsers, kept: Kept
) -> None:
    devices = [Device(f"u-ban-{n}", [emqx.mqtt[n]], user=USER, reconnects=True).connect() for n in (0, 2)]
    away = Device("u-ban-away", [emqx.mqtt[1]], user=USER, persistent=True).connect()
    try:
        await asyncio.to_thread(away.subscribe, "fleet/news")
        away.close()
        assert {one.client_id for one in await users.sessions(NAME)} >= {"u-ban-0", "u-ban-2", "u-ban-away"}
        proof = await users.isolate(NAME, kept, case="c1", reason="stolen", until=time.time() + 60)
        assert proof.holds, proof.missing
        assert calls_not_in_plan(proof, users.planned(NAME, PlanParameters(ContainmentGoal.ISOLATE))) == set()
        for device in devices:
            wait_for(lambda each=device: each.disconnects != [], "the cut")  # type: ignore[misc]  # a default binds it
            seen = len(device.connacks)
            wait_for(lambda each=device, n=seen: len(each.connacks) > n + 3, "refused")  # type: ignore[misc]
            assert set(device.connacks[seen + 1 :]) == {BANNED}
        assert await users.sessions(NAME) == ()
        assert await users.missing(NAME, ContainmentLevel.ISOLATED) == []
    finally:
        for device in devices:
            device.close()
    ended = await users.end_isolation(NAME)
    assert ended.holds, ended.missing
    with Device("u-ban-0", [emqx.mqtt[1]], user=USER) as back:
        assert back.connacks == [0]
        assert await asyncio.to_thread(back.publish, "fleet/telemetry") == DENIED
        assert await asyncio.to_thread(back.publish, up("u-ban-0", UpChannel.POSTURE)) in {0, NOBODY}
        released = await users.release(NAME, ())
        assert released.holds, released.missing
        assert calls_not_in_plan(released, users.planned(NAME, PlanParameters(ContainmentGoal.RELEASE))) == set()
        assert await asyncio.to_thread(back.publish, "fleet/telemetry") in {0, NOBODY}
    assert await broker.api.user_rules(NAME) == ()


async def test_a_restricted_user_keeps_each_sessions_own_branch(
    emqx: StandInProcess, broker: EmqxBroker, users: EmqxUsers, kept: Kept
) -> None:
    had = (AccessRule("fleet/#", "allow", "all"),)
    await broker.api.write_user_rules(NAME, had)
    with Device("u-r-1", [emqx.mqtt[0]], user=USER) as one, Device("u-r-2", [emqx.mqtt[2]], user=USER) as two:
        for device in (one, two):
            assert await asyncio.to_thread(device.publish, "fleet/telemetry") in {0, NOBODY}
            assert await asyncio.to_thread(device.subscribe, "fleet/news") == 1
            assert await asyncio.to_thread(device.subscribe, down(device.client_id, DownChannel.COMMAND)) == 1
        proof = await users.restrict(NAME, kept)
        assert proof.holds, proof.missing
        assert calls_not_in_plan(proof, users.planned(NAME, PlanParameters(ContainmentGoal.RESTRICT))) == set()
        assert kept.calls == [had]
        assert await broker.api.user_rules(NAME) == USER_RESTRICTION
        for device in (one, two):
            assert device.disconnects == []
            assert await asyncio.to_thread(device.publish, "fleet/telemetry") == DENIED
            assert await broker.api.subscriptions(device.client_id) == (down(device.client_id, DownChannel.COMMAND),)
        assert await users.missing(NAME, ContainmentLevel.RESTRICTED) == []
        # Rules of a client go before its user's: the proof says so instead of pretending.
        await broker.api.write_rules("u-r-1", had)
        assert any(
            "u-r-1: has rules of its own" in text for text in await users.missing(NAME, ContainmentLevel.RESTRICTED)
        )
        await broker.api.delete_rules("u-r-1")
        assert (await users.release(NAME, had)).holds
        assert await broker.api.user_rules(NAME) == had
    await broker.api.delete_user_rules(NAME)


async def test_whom_a_certificate_names_is_read_from_the_broker(users: EmqxUsers) -> None:
    assert await users.named_by_certificate() <= {SubjectKind.CLIENT, SubjectKind.USER}
