"""The link at a real broker, over TLS with client certificates."""

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import uvloop
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from controller.ports.errors import MessagesError, NoSubscriberError
from schemas.topics import DownChannel, UpChannel, down, up
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_harness import CLIENT_ID, TOPIC, fast, plain, running, secure
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

VERSIONS = ["5", "3.1.1"]


class Device:
    """A client of paho's own thread, as far from the link's code as possible."""

    def __init__(self, broker: Mosquitto, will: tuple[str, bytes] | None = None) -> None:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="edge-1", protocol=MQTTProtocolVersion.MQTTv5)
        self.heard: list[tuple[str, bytes]] = []
        self.client.on_message = lambda _c, _u, message: self.heard.append((message.topic, bytes(message.payload)))
        if will is not None:
            self.client.will_set(will[0], will[1], qos=1, retain=True)
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()

    def listen(self, topic: str) -> None:
        """Subscribe, and wait until the broker says so."""
        done = threading.Event()
        self.client.on_subscribe = lambda *_: done.set()
        self.client.subscribe(topic, 1)
        assert done.wait(5)

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)

    def die(self) -> None:
        """The cable is cut: the broker publishes the will."""
        sock = self.client.socket()
        assert sock is not None
        self.client.on_socket_close = None
        self.client.reconnect_delay_set(600, 600)
        sock.close()
        self.client.loop_stop()

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.mark.parametrize("version", [*VERSIONS, "auto"])
async def test_messages_go_both_ways(broker: Mosquitto, certs: Certs, version: Any) -> None:
    device = Device(broker)
    await asyncio.to_thread(device.listen, down("edge-1", DownChannel.RECEIPT))
    async with running(secure(broker, certs, protocol=version)) as here:
        await here.connected()
        await asyncio.to_thread(device.say, TOPIC, b"report")
        (message,) = await here.take(1)
        assert (message.topic, message.payload, message.qos) == (TOPIC, b"report", 1)
        assert not message.dup
        assert not message.retain
        here.link.acknowledge([message])
        assert here.link.publish(down("edge-1", DownChannel.RECEIPT), b"receipt")
        await eventually(lambda: device.heard == [(down("edge-1", DownChannel.RECEIPT), b"receipt")])
        state = here.link.state
        assert state.server == f"mqtts://127.0.0.1:{broker.tls_port}"
        assert state.protocol == ("5" if version == "auto" else version)
        assert state.detail == "connected"
        assert state.since > 0
    device.leave()
    assert here.link.state.detail == "stopped"
    # The certificate, and nothing else, said who we are.
    assert f"u'{CLIENT_ID}'" in broker.log
    await eventually(lambda: f"Received DISCONNECT from {CLIENT_ID}" in broker.log)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_either_loop_carries_many_messages_in_order(broker: Mosquitto, certs: Certs, runner: Any) -> None:
    count = 3000

    async def story() -> None:
        rand = random.Random(7)  # sizes around every buffer boundary: one TLS record, one read of the link
        async with running(secure(broker, certs, max_queued=count)) as here:
            await here.connected()
            sent = [rand.randbytes(rand.choice([0, 1, 120, 1700, 16_385, 70_000])) for _ in range(count)]
            got: list[bytes] = []

            async def collect() -> None:
                while len(got) < count:
                    messages = await here.link.receive(100)
                    here.link.acknowledge(messages)
                    got.extend(message.payload for message in messages)

            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(collect())
                for payload in sent:
                    while not here.link.publish(TOPIC, payload):
                        await asyncio.sleep(0.01)
            assert got == sent

    runner(story())


@pytest.mark.parametrize("version", VERSIONS)
async def test_retained_status_and_last_will_are_seen(broker: Mosquitto, certs: Certs, version: Any) -> None:
    status = up("edge-1", UpChannel.STATUS)
    device = Device(broker, will=(status, b"offline"))
    await asyncio.to_thread(device.say, status, b"online", retain=True)
    async with running(secure(broker, certs, protocol=version)) as here:
        (first,) = await here.take(1)
        assert (first.payload, first.retain) == (b"online", True)
        await asyncio.to_thread(device.die)
        (second,) = await here.take(1)
        assert (second.payload, second.retain) == (b"offline", False)
        here.link.acknowledge([first, second])
    # A kept session on MQTT 5 is not told again what it knows.
    if version == "5":
        async with running(secure(broker, certs, protocol=version)) as again:
            await again.connected()
            await again.nothing()


@pytest.mark.parametrize("version", VERSIONS)
async def test_session_is_kept_while_the_link_is_away(broker: Mosquitto, certs: Certs, version: Any) -> None:
    options = secure(broker, certs, protocol=version)
    async with running(options) as here:
        await here.connected()
    device = Device(broker)
    for n in range(50):
        await asyncio.to_thread(device.say, TOPIC, str(n).encode())
    device.leave()
    async with running(options) as again:
        await again.connected()
        messages = await again.take(50)
        assert [message.payload for message in messages] == [str(n).encode() for n in range(50)]
        assert ("mqtt_connected", True) in [(name, fields.get("session_present")) for name, fields in again.events]
        resumed_at = again.link.state.resumed_at
        assert resumed_at is not None
        assert all(message.received_at >= resumed_at for message in messages)


@pytest.mark.parametrize("version", VERSIONS)
async def test_session_can_end_with_the_link(broker: Mosquitto, certs: Certs, version: Any) -> None:
    options = secure(broker, certs, protocol=version, session_expiry_seconds=0)
    async with running(options) as here:
        await here.connected()
    device = Device(broker)
    await asyncio.to_thread(device.say, TOPIC, b"nobody keeps this")
    device.leave()
    async with running(options) as again:
        await again.connected()
        await again.nothing()


async def test_untrusted_server_is_named(broker: Mosquitto, certs: Certs, tmp_path: Path) -> None:
    stranger = Certs(tmp_path / "other")
    async with running(secure(broker, certs, ca=stranger.ca)) as here:
        await eventually(lambda: "not trusted" in here.link.state.detail, lambda: here.link.state.detail)
        assert not here.link.state.connected
        # An answer of the server's TLS, so MQTT 3.1.1 would not help.
        assert here.count("mqtt_falling_back") == 0


async def test_untrusted_client_is_named(broker: Mosquitto, certs: Certs, tmp_path: Path) -> None:
    certificate, key = Certs(tmp_path / "other").client(CLIENT_ID)
    async with running(secure(broker, certs, certificate=certificate, key=key, protocol="5")) as here:
        await eventually(lambda: "TLS failed" in here.link.state.detail, lambda: here.link.state.detail)


async def test_an_expired_certificate_is_named_and_no_other_protocol_version_is_tried(
    broker: Mosquitto, certs: Certs
) -> None:
    certificate, key = certs.expired_client(CLIENT_ID)
    async with running(secure(broker, certs, certificate=certificate, key=key)) as here:
        await eventually(lambda: here.count("mqtt_failed") >= 3, lambda: here.link.state.detail)
        await eventually(lambda: "certificate expired" in here.link.state.detail, lambda: here.link.state.detail)
        assert here.count("mqtt_falling_back") == 0


async def test_missing_key_file_is_named_and_picked_up_when_it_appears(
    broker: Mosquitto, certs: Certs, tmp_path: Path
) -> None:
    certificate, key = certs.client(CLIENT_ID)
    late = tmp_path / "late.key"
    async with running(secure(broker, certs, certificate=certificate, key=late)) as here:
        await eventually(lambda: str(late) in here.link.state.detail, lambda: here.link.state.detail)
        late.write_bytes(key.read_bytes())
        await here.connected()


async def test_confirmed_publish_tells_what_became_of_it(certs: Certs, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite cordon/#\n")
    with Mosquitto(extra_conf=f"acl_file {acl}") as broker:
        device = Device(broker)
        await asyncio.to_thread(device.listen, down("edge-1", DownChannel.COMMAND))
        async with running(plain(broker.port)) as here:
            with pytest.raises(MessagesError, match="not connected"):
                await here.link.publish_confirmed(TOPIC, b"too early")
            await here.connected()
            await here.link.publish_confirmed(down("edge-1", DownChannel.COMMAND), b"do", expiry_seconds=60)
            with pytest.raises(NoSubscriberError, match="nobody"):
                await here.link.publish_confirmed(down("edge-2", DownChannel.COMMAND), b"do")
            with pytest.raises(MessagesError, match=r"refused .*135") as refused:
                await here.link.publish_confirmed("elsewhere/x", b"do")
            assert not isinstance(refused.value, NoSubscriberError)
            with pytest.raises(MessagesError, match="cannot be sent"):
                await here.link.publish_confirmed("cordon/+", b"do")
            with pytest.raises(MessagesError, match="cannot be sent"):
                await here.link.publish_confirmed("", b"do")
            # A receipt that is refused harms nothing, and is told once.
            assert here.link.publish("elsewhere/x", b"receipt")
            assert here.link.publish("elsewhere/x", b"receipt")
            await here.link.publish_confirmed(down("edge-1", DownChannel.COMMAND), b"again")
            await eventually(lambda: here.count("mqtt_publish_refused") == 1)
            await eventually(lambda: [payload for _, payload in device.heard] == [b"do", b"again"])
        device.leave()


async def test_broker_goes_and_comes_back(certs: Certs) -> None:
    with Mosquitto(tls=certs, extra_conf="persistence_location /nonexistent") as broker:
        async with running(secure(broker, certs)) as here:
            await here.connected()
            broker.stop(kill=True)
            await here.down()
            await eventually(lambda: "refused" in here.link.state.detail, lambda: here.link.state.detail)
            assert not here.link.publish(TOPIC, b"down")
            with pytest.raises(MessagesError, match="not connected"):
                await here.link.publish_confirmed(TOPIC, b"down")
            broker.start()
            await here.connected()
            # The new broker knows no session: the subscription was made again.
            assert here.link.publish(TOPIC, b"back")
            assert [message.payload for message in await here.take(1)] == [b"back"]


async def test_next_server_of_the_list_is_taken_without_waiting(broker: Mosquitto, certs: Certs) -> None:
    certificate, key = certs.client(CLIENT_ID)
    with Mosquitto() as gone:
        dead = f"mqtt://127.0.0.1:{gone.port}"
    alive = f"mqtts://127.0.0.1:{broker.tls_port}"
    options = fast(servers=(dead, dead, alive), ca=certs.ca, certificate=certificate, key=key)
    async with running(options) as here:
        await here.connected()
        assert here.link.state.server == alive
        assert here.count("mqtt_failed") == 2
        assert here.count("mqtt_waiting") == 0


async def test_a_node_that_drops_the_link_again_and_again_is_left_for_another(broker: Mosquitto, certs: Certs) -> None:
    certificate, key = certs.client(CLIENT_ID)
    alive = f"mqtts://127.0.0.1:{broker.tls_port}"
    async with Proxy(broker.host, broker.tls_port) as flaky:
        first = f"mqtts://127.0.0.1:{flaky.port}"
        options = fast(servers=(first, alive), ca=certs.ca, certificate=certificate, key=key)
        async with running(options) as here:
            for _ in range(5):
                await here.connected()
                if here.link.state.server == alive:
                    break
                flaky.cut()
                await here.down()
            assert here.link.state.server == alive
