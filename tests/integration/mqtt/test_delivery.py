"""Acknowledgements and bounds, seen on the wire between the link and a real broker."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from controller.ports.errors import MessagesError
from schemas.topics import DownChannel, down
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_harness import TOPIC, packets, plain, pubacks, running
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

VERSIONS = ["5", "3.1.1"]
PINGREQ, DISCONNECT = 0xC0, 0xE0


@pytest.fixture
async def proxy(broker: Mosquitto) -> AsyncIterator[Proxy]:
    async with Proxy(broker.host, broker.port) as between:
        yield between


def say(broker: Mosquitto, payloads: list[bytes], qos: int = 1) -> None:
    """A device publishes them, in order."""
    device = paho.Client(CallbackAPIVersion.VERSION2, client_id="edge-1")
    device.connect(broker.host, broker.port)
    device.loop_start()
    infos = [device.publish(TOPIC, payload, qos=qos) for payload in payloads]
    for info in infos:
        info.wait_for_publish(20)
    device.disconnect()
    device.loop_stop()


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [str(n).encode() for n in range(start, start + count)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_pubacks_leave_only_when_told_and_in_the_order_received(
    broker: Mosquitto, proxy: Proxy, version: Any
) -> None:
    async with running(plain(proxy.port, protocol=version)) as here:
        await here.connected()
        await asyncio.to_thread(say, broker, numbers(10))
        got = await here.take(10)
        await asyncio.sleep(0.1)
        (stream,) = proxy.from_client
        assert pubacks(stream) == []
        here.link.acknowledge(got[:3])
        await eventually(lambda: pubacks(stream) == [1, 2, 3])
        # A later one told first waits for the earlier ones [MQTT-4.6.0-2].
        here.link.acknowledge([got[9], got[5], got[4]])
        await asyncio.sleep(0.1)
        assert pubacks(stream) == [1, 2, 3]
        here.link.acknowledge([got[3]])
        await eventually(lambda: pubacks(stream) == [1, 2, 3, 4, 5, 6])
        here.link.acknowledge(got)  # told twice, sent once
        await eventually(lambda: pubacks(stream) == list(range(1, 11)))
        await asyncio.sleep(0.05)
        assert len(pubacks(stream)) == 10


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_was_not_acknowledged_comes_again_after_a_cut(broker: Mosquitto, proxy: Proxy, version: Any) -> None:
    async with running(plain(proxy.port, protocol=version)) as here:
        await here.connected()
        await asyncio.to_thread(say, broker, numbers(8))
        before = await here.take(6)  # two more wait inside the link
        here.link.acknowledge(before[:2])
        await eventually(lambda: len(pubacks(proxy.from_client[0])) == 2)
        await eventually(lambda: broker.log.count("Received PUBACK from cordon-controller") == 2)
        proxy.cut()
        await eventually(lambda: len(proxy.from_client) == 2 and here.link.state.connected)
        await asyncio.to_thread(say, broker, numbers(2, start=8))
        # Tickets of the earlier connection are void: their packet ids may mean something else by now.
        here.link.acknowledge(before)
        again = await here.take(8)
        assert [message.payload for message in again] == numbers(8, start=2)
        assert [message.dup for message in again] == [True] * 6 + [False] * 2
        await here.nothing(0.1)
        assert pubacks(proxy.from_client[1]) == []
        here.link.acknowledge(again)
        await eventually(lambda: len(pubacks(proxy.from_client[1])) == 8)
        assert here.count("mqtt_lost") == 1
        assert here.count("mqtt_connected") == 2


async def test_broker_sends_no_more_than_the_receive_maximum(broker: Mosquitto, proxy: Proxy) -> None:
    async with running(plain(proxy.port, protocol="5", receive_maximum=5)) as here:
        await here.connected()
        await asyncio.to_thread(say, broker, numbers(12))
        first = await here.take(5)
        await here.nothing(0.2)
        here.link.acknowledge(first)
        rest = await here.take(5)
        here.link.acknowledge(rest)
        assert [message.payload for message in first + rest + await here.take(2)] == numbers(12)


async def test_oversized_messages_are_left_at_the_broker(broker: Mosquitto, proxy: Proxy) -> None:
    async with running(plain(proxy.port, protocol="5", max_packet_bytes=1000)) as here:
        await here.connected()
        await asyncio.to_thread(say, broker, [b"x" * 2000, b"small"])
        assert [message.payload for message in await here.take(1)] == [b"small"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1])
async def test_reading_stops_when_nobody_takes_and_the_link_stays_alive(
    broker: Mosquitto, proxy: Proxy, version: Any, qos: int
) -> None:
    count = 300
    options = plain(proxy.port, protocol=version, receive_maximum=20, keepalive_seconds=1, max_waiting_bytes=1 << 30)
    async with running(options) as here:
        await here.connected()
        sending = asyncio.to_thread(say, broker, [str(n).encode().rjust(20_000) for n in range(count)], qos)
        await sending
        read = len(proxy.from_client[0])
        await asyncio.sleep(3.2)
        # Longer than an unread answer may take, and the broker has heard from us all the while.
        assert here.count("mqtt_lost") == 0
        pings = [first for first, _ in packets(proxy.from_client[0][read:]) if first == PINGREQ]
        assert len(pings) >= 2
        got: list[bytes] = []
        while len(got) < count:
            messages = await here.link.receive(10_000)
            assert len(messages) <= 20
            here.link.acknowledge(messages)
            got += [message.payload.strip() for message in messages]
        assert got == numbers(count)
        await asyncio.sleep(1.5)  # pings work as before
        assert here.count("mqtt_lost") == 0
        assert here.link.state.connected


async def test_reading_stops_at_a_number_of_bytes(broker: Mosquitto, proxy: Proxy) -> None:
    async with running(plain(proxy.port, max_waiting_bytes=50_000)) as here:
        await here.connected()
        await asyncio.to_thread(say, broker, [bytes(20_000)] * 12)
        await asyncio.sleep(0.2)
        taken = 0
        while taken < 12:
            messages = await here.link.receive(100)
            assert len(messages) <= 3
            taken += len(messages)


async def test_outgoing_queue_is_bounded_and_survives_a_cut(broker: Mosquitto, proxy: Proxy) -> None:
    topic = down("edge-1", DownChannel.RECEIPT)
    heard: list[bytes] = []
    device = paho.Client(CallbackAPIVersion.VERSION2, client_id="edge-1")
    device.on_message = lambda _c, _u, message: heard.append(bytes(message.payload))
    subscribed = threading.Event()
    device.on_subscribe = lambda *_: subscribed.set()
    device.connect(broker.host, broker.port)
    device.subscribe(topic, 1)
    device.loop_start()
    assert await asyncio.to_thread(subscribed.wait, 5)
    options = plain(proxy.port, max_queued=50, max_inflight=7, confirm_timeout_seconds=0.2)
    async with running(options) as here:
        await here.connected()
        proxy.hold()
        with pytest.raises(MessagesError, match=r"no PUBACK within 0\.2 s"):
            await here.link.publish_confirmed(topic, b"never confirmed")
        took = [here.link.publish(topic, payload) for payload in numbers(60)]
        assert took == [True] * 49 + [False] * 11  # the unconfirmed one is still under way
        with pytest.raises(MessagesError, match="50 messages wait"):
            await here.link.publish_confirmed(topic, b"no room")
        await eventually(lambda: proxy.from_client[0].count(topic.encode()) >= 7)
        await asyncio.sleep(0.1)
        sent = [first for first, _ in packets(proxy.from_client[0]) if first & 0xF0 == 0x30]
        assert len(sent) == 7
        proxy.cut()
        proxy.release()
        await eventually(lambda: len(heard) >= 49, lambda: str(heard))
        assert heard[-49:] == numbers(49)
        # Room again.
        assert here.link.publish(topic, b"after")
        await eventually(lambda: heard[-1] == b"after")
    device.disconnect()
    device.loop_stop()


async def test_confirmed_publish_ends_with_its_connection(broker: Mosquitto, proxy: Proxy) -> None:
    async with running(plain(proxy.port)) as here:
        await here.connected()
        proxy.hold()

        async def cut_soon() -> None:
            await eventually(lambda: b"doomed" in proxy.from_client[0])
            proxy.cut()
            proxy.release()

        async with asyncio.TaskGroup() as group:
            group.create_task(cut_soon())
            with pytest.raises(MessagesError, match="no PUBACK: "):
                await here.link.publish_confirmed(TOPIC, b"doomed")
        await here.connected()
        await here.link.publish_confirmed(TOPIC, b"fine")
        assert [message.payload for message in await here.take(1)] == [b"fine"]


async def test_expired_message_is_not_sent_after_a_reconnect(broker: Mosquitto, proxy: Proxy) -> None:
    async with running(plain(proxy.port)) as here:
        await here.connected()
        proxy.hold()
        assert here.link.publish(TOPIC, b"old", expiry_seconds=0)
        assert here.link.publish(TOPIC, b"young", expiry_seconds=600)
        proxy.cut()
        proxy.release()
        await here.down()
        await here.connected()
        assert [message.payload for message in await here.take(1)] == [b"young"]
        await here.nothing(0.1)


@pytest.mark.parametrize("version", VERSIONS)
async def test_goodbye_comes_after_the_last_acknowledgement(broker: Mosquitto, proxy: Proxy, version: Any) -> None:
    async with running(plain(proxy.port, protocol=version)) as here:
        await here.connected()
        await asyncio.to_thread(say, broker, numbers(3))
        here.link.acknowledge(await here.take(3))
    await eventually(lambda: [first for first, _ in packets(proxy.from_client[0])][-4:] == [0x40] * 3 + [DISCONNECT])


async def test_goodbye_does_not_wait_for_a_broker_that_reads_nothing(broker: Mosquitto, proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    async with running(plain(proxy.port, max_inflight=1000)) as here:
        await here.connected()
        proxy.freeze()
        for _ in range(200):
            here.link.publish(TOPIC, bytes(100_000))
        await asyncio.sleep(0.1)
        began = loop.time()
    assert loop.time() - began < 5  # the bound of 2 s, and room for a busy machine
    assert here.link.state.detail == "stopped"
