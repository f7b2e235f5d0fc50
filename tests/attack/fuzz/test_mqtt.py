"""A slice of the same through a real broker and the real link: what MQTT itself lets through."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from controller.service.ingest.ingest import Ingest
from schemas.base import MAX_PACKET_BYTES
from schemas.topics import DownChannel, UpChannel, down, up
from tests.attack.fuzz.messages import Hostile, hostile
from tests.support.controller_harness import open_harness
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_harness import plain, running
from tests.support.reports import full
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

INPUTS = 3000
NO_LIMITS = "max_inflight_messages 0\nmax_queued_messages 0"


def through(messages: Iterable[Hostile]) -> list[Hostile]:
    """What reaches the controller's subscription at all."""
    found = []
    for one in messages:
        parts = one.topic.split("/")
        inside = len(parts) == 5 and parts[:2] == ["cordon", "v1"] and parts[3] == "up"
        if inside and not set(one.topic) & set("+#\x00"):
            found.append(one)
        if len(found) == INPUTS:
            break
    return found


async def test_hostile_messages_over_a_broker_end_neither_link_nor_ingest(tmp_path: Path) -> None:
    messages = through(hostile(11, 5000))
    answers: list[dict[str, object]] = []
    with Mosquitto(extra_conf=NO_LIMITS) as broker:
        async with open_harness(tmp_path / "c.db") as harness, running(plain(broker.port, protocol="5")) as link:
            await link.connected()
            ingest = Ingest(
                link.link, harness.fleet, lambda event, fields: harness.logged.append((event, dict(fields)))
            )
            publisher = paho.Client(CallbackAPIVersion.VERSION2, "attacker", protocol=MQTTProtocolVersion.MQTTv5)
            publisher.max_queued_messages_set(0)
            publisher.on_message = lambda _c, _d, message: answers.append(json.loads(message.payload))
            publisher.connect(broker.host, broker.port)
            publisher.loop_start()
            try:
                publisher.subscribe(down("honest", DownChannel.RECEIPT), 1)
                async with asyncio.TaskGroup() as group:
                    reading = group.create_task(ingest.run())
                    for number, one in enumerate(messages):
                        publisher.publish(one.topic, one.payload, qos=1, retain=one.retain)
                        if number == INPUTS // 2:
                            publisher.publish(up("honest", UpChannel.POSTURE), full("honest", 1, 22), qos=1)
                    # The broker drops what is larger than the controller's Maximum Packet Size.
                    wanted = sum(len(one.payload) < MAX_PACKET_BYTES - 1024 for one in messages) + 1
                    await eventually(lambda: ingest.counts["received"] == wanted, f"{wanted} received", 60.0)
                    await eventually(lambda: answers)
                    reading.cancel()
            finally:
                publisher.disconnect()
                publisher.loop_stop()
            assert [one["verdict"] for one in answers] == ["accepted"]
            assert (link.count("mqtt_connected"), link.count("mqtt_lost")) == (1, 0)
            assert [event for event, _ in harness.logged if event == "message failed"] == []
            assert ingest.counts["refused:other"] == 0
            assert ingest.counts["refused:malformed"] > 100
