"""The link at servers that refuse, stay silent, or speak nonsense."""

import asyncio
from typing import Any

import pytest

from tests.integration.mqtt.scripted_server import CONNECT, Double, Peer, double
from tests.support.mqtt_harness import TOPIC, plain, running
from tests.support.waiting import eventually


def publish(topic: bytes, payload: bytes, packet_id: int) -> bytes:
    """A small MQTT 5 PUBLISH at QoS 1."""
    body = len(topic).to_bytes(2) + topic + packet_id.to_bytes(2) + b"\x00" + payload
    assert len(body) < 128
    return bytes((0x32, len(body))) + body


async def no_answer(peer: Peer) -> None:
    await peer.packet()
    if peer.level == 5:
        await peer.rest()
    peer.say(b"\x20\x02\x00\x00")
    await suback_3(peer)


async def closes(peer: Peer) -> None:
    await peer.packet()
    if peer.level == 5:
        return
    peer.say(b"\x20\x02\x00\x00")
    await suback_3(peer)


async def old_refusal(peer: Peer) -> None:
    await peer.packet()
    if peer.level == 5:
        peer.say(b"\x20\x02\x00\x01")  # as 3.1.1 says "unacceptable protocol version"
        return
    peer.say(b"\x20\x02\x00\x00")
    await suback_3(peer)


async def new_refusal(peer: Peer) -> None:
    await peer.packet()
    if peer.level == 5:
        peer.say(b"\x20\x03\x00\x84\x00")
        return
    peer.say(b"\x20\x02\x00\x00")
    await suback_3(peer)


async def suback_3(peer: Peer) -> None:
    _, body = await peer.packet()
    peer.say(b"\x90\x03", body[:2], b"\x01")
    await peer.rest()


def levels(server: Double) -> list[int]:
    """Protocol levels of the CONNECTs, in order."""
    return [peer.level for peer in server.peers]


@pytest.mark.parametrize("behave", [no_answer, closes, old_refusal, new_refusal])
async def test_falls_back_where_mqtt_5_is_not_spoken(behave: Any) -> None:
    async with double(behave) as server, running(plain(server.port, connect_timeout_seconds=0.5)) as here:
        await here.connected()
        assert here.link.state.protocol == "3.1.1"
        assert levels(server) == [5, 4]
        # It is remembered: a reconnect does not wait for the time-out again.
        server.peers[-1].writer.transport.abort()
        await eventually(lambda: here.count("mqtt_connected") == 2)
        assert levels(server) == [5, 4, 4]


async def test_no_fallback_when_a_version_is_demanded() -> None:
    async with double(closes) as server, running(plain(server.port, protocol="5")) as here:
        await eventually(lambda: len(server.peers) >= 3)
        assert set(levels(server)) <= {0, 5}  # 0: its CONNECT is not read yet
        assert here.count("mqtt_falling_back") == 0


async def test_server_that_never_answers_is_named() -> None:
    async with (
        double(Peer.rest) as server,
        running(plain(server.port, protocol="5", connect_timeout_seconds=0.2)) as here,
    ):
        await eventually(lambda: "did not answer the CONNECT" in here.link.state.detail)
        await eventually(lambda: len(server.peers) >= 2)


@pytest.mark.parametrize(
    ("code", "words"),
    [(134, "user name or password"), (135, "not authorized"), (138, "banned"), (133, "client id"), (151, "licence")],
)
async def test_refusal_is_told_in_words_and_waits_longer(code: int, words: str) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.packet()
        peer.say(b"\x20\x03\x00", bytes((code,)), b"\x00")
        await peer.rest()

    async with double(refuse) as server, running(plain(server.port, refused_wait_seconds=40.0)) as here:
        await eventually(lambda: here.count("mqtt_waiting"))
        assert words in here.link.state.detail
        assert str(code) in here.link.state.detail
        assert here.events[-1] == ("mqtt_waiting", {"seconds": 30.0, "after": "refused"})
        assert levels(server) == [5]  # another version would be refused as well


async def test_old_refusal_codes_read_the_same() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.packet()
        peer.say(b"\x20\x02\x00\x05")

    async with double(refuse) as server, running(plain(server.port, protocol="3.1.1")) as here:
        await eventually(lambda: "not authorized" in here.link.state.detail, lambda: here.link.state.detail)


@pytest.mark.parametrize(
    ("code", "words", "after"),
    [
        (152, "administrator", "dropped"),
        (142, "second controller", "taken_over"),
        (135, "no longer authorized", "refused"),
        (139, "shutting down", "dropped"),
    ],
)
async def test_goodbye_of_the_broker_is_told_in_words(code: int, words: str, after: str) -> None:
    async def kick(peer: Peer) -> None:
        await peer.accept()
        peer.say(b"\xe0\x02", bytes((code,)), b"\x00")
        await peer.rest()

    async with double(kick) as server, running(plain(server.port)) as here:
        await eventually(lambda: here.count("mqtt_waiting"))
        lost = [fields for name, fields in here.events if name in {"mqtt_lost", "mqtt_failed"}]
        assert words in str(lost[0]["reason"])
        assert lost[0]["reason_code"] == code
        assert next(fields["after"] for name, fields in here.events if name == "mqtt_waiting") == after
        # And the link comes back by itself.
        await eventually(lambda: len(server.peers) >= 2)


async def test_refused_subscription_is_told() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.packet()
        peer.say(b"\x20\x03\x00\x00\x00")
        _, body = await peer.packet()
        peer.say(b"\x90\x04", body[:2], b"\x00\x87")
        await peer.rest()

    async with double(refuse) as server, running(plain(server.port)) as here:
        await eventually(lambda: "refused the subscription" in here.link.state.detail)
        assert not here.link.state.connected
        await eventually(lambda: len(server.peers) >= 2)


async def test_topic_that_is_not_text_is_passed_on_and_acknowledged() -> None:
    async def garble(peer: Peer) -> None:
        await peer.accept()
        peer.say(publish(b"cordon/\xff\xfe", b"?", 7), publish(TOPIC.encode(), b"good", 8))
        await peer.rest()

    async with double(garble) as server, running(plain(server.port)) as here:
        got = await here.take(2)
        assert [(message.topic, message.payload) for message in got] == [("", b"?"), (TOPIC, b"good")]
        here.link.acknowledge(got)
        await eventually(lambda: (0x40, b"\x00\x08") in server.peers[0].seen)
        assert [body for first, body in server.peers[0].seen if first == 0x40] == [b"\x00\x07", b"\x00\x08"]
        assert here.link.state.connected


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x32\x02\xff\xff",  # a topic longer than its packet
        b"\x32\x07\x00\x01a\x00\x01\x05\x99",  # properties that are none
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\xff\xff\xff\xff\xff\xff",  # a length that never ends
        b"\xf0\x00",
        b"\x40\x02\x00\x63",  # a PUBACK nobody waits for: harmless
        b"\x90\x01\x00",
    ],
)
async def test_garbage_costs_a_connection_at_most(garbage: bytes) -> None:
    async def rave(peer: Peer) -> None:
        await peer.accept()
        if len(here_peers) == 1:
            peer.say(garbage)
        peer.say(publish(TOPIC.encode(), b"good", 8))
        await peer.rest()

    async with double(rave) as server:
        here_peers = server.peers
        async with running(plain(server.port)) as here:
            (message,) = await here.take(1)
            assert message.payload == b"good"


async def test_server_limits_are_kept() -> None:
    # Receive Maximum 3, Maximum Packet Size 200.
    properties = b"\x21\x00\x03\x27\x00\x00\x00\xc8"

    async def strict(peer: Peer) -> None:
        await peer.accept(properties)
        await peer.rest()

    async with double(strict) as server, running(plain(server.port)) as here:
        await here.connected()
        assert here.link.publish(TOPIC, bytes(500))
        assert here.count("mqtt_publish_impossible") == 1
        for n in range(10):
            assert here.link.publish(TOPIC, bytes((n,)))
        seen = server.peers[0].seen
        await eventually(lambda: sum(first == 0x32 for first, _ in seen) >= 3)
        await asyncio.sleep(0.1)
        sent = [body for first, body in seen if first == 0x32]
        assert [body[-1] for body in sent] == [0, 1, 2]
        for body in sent[:2]:
            at = 2 + len(TOPIC)
            server.peers[0].say(b"\x40\x02", body[at : at + 2])
        await eventually(lambda: sum(first == 0x32 for first, _ in seen) >= 5)
        await asyncio.sleep(0.1)
        sent = [body for first, body in seen if first == 0x32]
        assert [body[-1] for body in sent] == [0, 1, 2, 3, 4]


async def test_connect_asks_for_what_the_options_say() -> None:
    async def accept(peer: Peer) -> None:
        await peer.accept()
        await peer.rest()

    async with double(accept) as server, running(plain(server.port, session_expiry_seconds=77)) as here:
        await eventually(lambda: here.count("mqtt_connected"))
        first, body = server.peers[0].seen[0]
        assert first == CONNECT
        assert body[:7] == b"\x00\x04MQTT\x05"
        assert body[7] & 0x02 == 0  # no clean start
        size = body[10]
        properties = body[11 : 11 + size]
        assert b"\x11\x00\x00\x00\x4d" in properties  # session expiry
        assert b"\x21\x03\xe8" in properties  # receive maximum
        assert b"\x27\x00\x01\x20\x00" in properties  # maximum packet size
        _, subscribe = server.peers[0].seen[1]
        assert subscribe[-1] == 0b01_0001  # QoS 1, retained only when new


async def test_dead_server_is_noticed() -> None:
    async def freeze(peer: Peer) -> None:
        await peer.accept()
        await peer.rest()  # reads PINGREQ, answers none

    async with double(freeze) as server, running(plain(server.port, keepalive_seconds=1)) as here:
        await here.connected()
        await here.down()
        assert "ping" in here.link.state.detail
        await here.connected()
        assert len(server.peers) == 2
