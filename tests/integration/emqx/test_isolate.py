"""Isolation and its end, seen from the device, over the stand-in's three nodes."""

import asyncio
import time
from functools import partial
from typing import Final

from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import restriction
from schemas.topics import DownChannel, UpChannel, down, up
from tests.integration.emqx.conftest import USER, SavedRules
from tests.support.emqx_calls import add_ban, ban_of, delete_rules, lift_ban, publish, rules_of, session_of
from tests.support.mqtt_device import Device
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

BANNED: Final = 138
DENIED: Final = 135


async def test_the_socket_is_closed_and_every_node_refuses(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    until = time.time() + 600.5
    with Device("i-cut", [emqx.mqtt[2]], user=USER) as device:
        await asyncio.to_thread(device.subscribe, "fleet/news")
        before = time.time()
        proof = await broker.isolate(
            Subject.client("i-cut"), saved, case="case-1", reason="telnet is open", until=until
        )

        assert proof.holds, proof.missing
        assert before <= proof.cut_at <= time.time()
        assert proof.ban_until is not None
        assert until <= proof.ban_until < until + 1
        wait_for(lambda: device.disconnects != [], "the disconnect")
    for address in emqx.mqtt:
        with Device("i-cut", [address], user=USER) as again:
            assert again.connacks == [BANNED]
    ban = await ban_of(broker.api, "i-cut")
    assert ban is not None
    assert (ban.by, ban.reason, ban.is_ours) == ("cordon/case-1", "telnet is open", True)
    assert ban.until == proof.ban_until
    assert await rules_of(broker.api, "i-cut") == restriction("i-cut")
    assert saved.calls == [()]

    again_proof = await broker.isolate(Subject.client("i-cut"), saved, case="case-1", reason="again", until=until + 50)
    assert again_proof.holds
    # EMQX cannot change a ban: Cordon's own ban with another end is replaced, while the rules below it hold.
    assert again_proof.ban_until == proof.ban_until + 50
    assert await rules_of(broker.api, "i-cut") == restriction("i-cut")

    ended = await broker.end_isolation(Subject.client("i-cut"), saved)
    assert ended.holds, ended.missing
    with Device("i-cut", [emqx.mqtt[0]], user=USER) as back:
        assert back.connacks == [0]
        assert await asyncio.to_thread(back.publish, "fleet/telemetry") == DENIED
        assert await asyncio.to_thread(back.publish, up("i-cut", UpChannel.POSTURE)) != DENIED
        assert (await broker.release(Subject.client("i-cut"), ())).holds
        assert await asyncio.to_thread(back.publish, "fleet/telemetry") != DENIED


async def test_an_infinite_ban_is_released_with_the_rules(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    proof = await broker.isolate(Subject.client("i-ever"), saved, case="case-2", reason="r", until=None)
    assert proof.holds
    assert proof.ban_until is None
    assert [ban.until for ban in [b async for b in broker.bans()] if ban.who == "i-ever"] == [None]
    assert (await broker.release(Subject.client("i-ever"), ())).holds
    with Device("i-ever", [emqx.mqtt[1]], user=USER) as device:
        assert device.connacks == [0]


async def test_a_foreign_ban_is_never_touched(broker: EmqxBroker, saved: SavedRules) -> None:
    foreign = await add_ban(broker.api, "i-foreign", "somebody")

    proof = await broker.isolate(
        Subject.client("i-foreign"), saved, case="case-3", reason="ours", until=time.time() + 60
    )
    assert proof.holds, proof.missing
    assert proof.ban_until is None
    assert any(step.what == "ban there already" and "somebody" in step.answer for step in proof.steps)

    assert (await broker.end_isolation(Subject.client("i-foreign"), saved)).holds
    assert await ban_of(broker.api, "i-foreign") == foreign
    released = await broker.release(Subject.client("i-foreign"), ())
    assert released.holds
    assert any(step.what == "foreign ban left" for step in released.steps)
    assert await ban_of(broker.api, "i-foreign") == foreign
    await lift_ban(broker.api, "i-foreign")


def _more_connacks(device: Device, than: int) -> bool:
    return len(device.connacks) > than


async def test_a_client_that_reconnects_at_once_ends_outside(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    device = Device("i-fast", emqx.mqtt, user=USER, reconnects=True).connect()
    try:
        for round_number in range(5):
            wait_for(lambda: device.is_connected, "connected")
            proof = await broker.isolate(
                Subject.client("i-fast"), saved, case=f"c{round_number}", reason="r", until=time.time() + 60
            )
            assert proof.holds, proof.missing
            seen = len(device.connacks)
            wait_for(partial(_more_connacks, device, seen + 6), "some more attempts")
            assert set(device.connacks[seen + 1 :]) == {BANNED}
            client = await session_of(broker.api, "i-fast")
            assert client is None or not client.connected
            assert (await broker.release(Subject.client("i-fast"), ())).holds
    finally:
        device.close()


async def test_a_waiting_session_is_gone_when_an_isolation_ends(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    device = Device("i-away", [emqx.mqtt[0]], user=USER, persistent=True).connect()
    try:
        await asyncio.to_thread(device.subscribe, "fleet/news")
        device.close()
        proof = await broker.isolate(Subject.client("i-away"), saved, case="c", reason="r", until=time.time() + 60)
        assert proof.holds, proof.missing
        await publish(broker.api, "fleet/news", b"while banned")
        assert (await broker.end_isolation(Subject.client("i-away"), saved)).holds
        device.connect()
        await publish(broker.api, "fleet/news", b"while restricted")
        assert await asyncio.to_thread(device.subscribe, down("i-away", DownChannel.COMMAND)) == 1
        await publish(broker.api, down("i-away", DownChannel.COMMAND), b"last")
        wait_for(lambda: device.got(down("i-away", DownChannel.COMMAND)) == [b"last"], "the command")
        assert device.got("fleet/news") == []
    finally:
        device.close()
        await broker.release(Subject.client("i-away"), ())


async def test_end_of_isolation_restores_a_restriction_that_was_lost(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    await broker.isolate(Subject.client("i-lost"), saved, case="c", reason="r", until=None)
    await delete_rules(broker.api, "i-lost")
    proof = await broker.end_isolation(Subject.client("i-lost"), saved)
    assert proof.holds, proof.missing
    assert any(step.what == "restriction was gone" for step in proof.steps)
    assert await rules_of(broker.api, "i-lost") == restriction("i-lost")
    await broker.release(Subject.client("i-lost"), ())


async def test_an_expired_ban_leaves_the_restriction(
    emqx: StandInProcess, broker: EmqxBroker, saved: SavedRules
) -> None:
    await broker.isolate(Subject.client("i-short"), saved, case="c", reason="r", until=time.time() + 1)
    deadline = time.monotonic() + 10
    while True:
        with Device("i-short", [emqx.mqtt[1]], user=USER) as device:
            if device.connacks == [0]:
                assert await asyncio.to_thread(device.publish, "fleet/telemetry") == DENIED
                break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    # The expired row is still listed: a new isolation replaces it, a release deletes it.
    proof = await broker.isolate(Subject.client("i-short"), saved, case="c2", reason="r", until=time.time() + 60)
    assert proof.holds, proof.missing
    assert (await broker.release(Subject.client("i-short"), ())).holds
