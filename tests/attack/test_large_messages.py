"""Messages that are too large to count: the broker drops them, and every message of the protocol fits."""

import asyncio
import socket
from typing import get_args

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import BaseModel, ValidationError

from controller.adapters.mqtt.buffered_socket import BufferedSocket
from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.mqtt.paho_client import PahoClient
from controller.service.ingest.decoding import MAX_PAYLOAD
from device_agent.domain.connection_policy import ConnectionAttempt
from device_agent.mqtt_client import connect_options
from schemas.base import (
    MAX_CERTIFICATE_BYTES,
    MAX_COMMAND_BYTES,
    MAX_PACKET_BYTES,
    MAX_POSTURE_BYTES,
    CollectedSection,
)
from schemas.broker_address import BrokerAddress
from schemas.posture import ReportSections
from schemas.topics import UpChannel, up
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_harness import plain, running

MAXIMUM_PACKET_SIZE = b"\x27" + MAX_PACKET_BYTES.to_bytes(4, "big")  # a property of CONNECT [MQTT-3.1.2.11.4]


def test_every_message_fits_and_little_more() -> None:
    largest = max(*MAX_PAYLOAD.values(), MAX_COMMAND_BYTES, MAX_CERTIFICATE_BYTES)
    topic = len(up("x" * 64, UpChannel.POSTURE))
    assert largest + topic + 4096 < MAX_PACKET_BYTES, "room for the properties of MQTT 5"
    assert MAX_PACKET_BYTES <= 1.2 * MAX_POSTURE_BYTES


async def test_the_controller_gets_no_message_that_cannot_count() -> None:
    counts, most = b"y" * MAX_POSTURE_BYTES, b"x" * MAX_PACKET_BYTES
    with Mosquitto() as broker:
        async with running(plain(broker.port, protocol="5")) as here:
            await here.connected()

            def publish() -> None:
                attacker = paho.Client(CallbackAPIVersion.VERSION2, "a", protocol=MQTTProtocolVersion.MQTTv5)
                attacker.connect(broker.host, broker.port)
                attacker.loop_start()
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
                properties.UserProperty = [("a", "b" * 40_000), ("a", "b" * 40_000)]
                topic = up("edge-1", UpChannel.POSTURE)
                for payload, more in (
                    (most, None),
                    (b"z" * 1_000_000, None),
                    (b"w" * 2000, properties),
                    (counts, None),
                ):
                    attacker.publish(topic, payload, 1, properties=more).wait_for_publish(20)
                attacker.disconnect()
                attacker.loop_stop()

            await asyncio.to_thread(publish)
            assert [message.payload[:1] for message in await here.take(1)] == [b"y"]
            assert (here.count("mqtt_connected"), here.count("mqtt_lost")) == (1, 0)


def test_the_agent_asks_for_the_same_bound() -> None:
    options = connect_options(ConnectionAttempt(level=5, servers=1))
    assert MAXIMUM_PACKET_SIZE in options["properties"].pack()
    assert connect_options(ConnectionAttempt(level=4, servers=1)) == {}, "3.1.1 has no such option"


def test_the_controller_asks_for_it_in_its_first_packet() -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        client = PahoClient(lambda: BufferedSocket(mine), MqttOptions(("mqtt://x:1",), "c"), "5")
        client.dial(BrokerAddress.parse("mqtt://x:1"))
        client.loop_write()
        client.socket().flush()  # type: ignore[union-attr]  # the socket given above
        assert MAXIMUM_PACKET_SIZE in theirs.recv(4096)


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


LISTS = [
    (section, name)
    for section, field in ReportSections.model_fields.items()
    for model in _models(field.annotation)
    if issubclass(model, CollectedSection)
    for name, one in model.model_fields.items()
    if "tuple" in str(one.annotation)
]


@pytest.mark.parametrize(("section", "name"), LISTS)
def test_the_first_wrong_entry_of_a_list_ends_its_reading(section: str, name: str) -> None:
    """Otherwise a message of 60 KB makes 100,000 errors, which take the event loop a second."""
    entries: tuple[object, ...] = ({}, 1, "x", [])
    for entry in entries:
        with pytest.raises(ValidationError) as caught:
            ReportSections.model_validate({section: {"state": "ok", name: [entry] * 5_000}})
        assert caught.value.error_count() < 40


def test_there_are_many_lists() -> None:
    assert len(LISTS) > 35
