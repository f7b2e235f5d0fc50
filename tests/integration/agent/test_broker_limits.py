"""Brokers with limits of their own: large packets and retained messages."""

import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from device_agent.domain.packet_limit import LOSSES, SUSPICIOUS_BYTES
from device_agent.mqtt_client import MqttClient, StatusPayloads
from device_agent.settings import MqttSettings
from schemas.topics import DownChannel, UpChannel
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import wait_for

MOST = 5000
LARGE = b"x" * 6000


@dataclass
class Listener:
    ups: int = 0
    downs: int = 0
    is_up: threading.Event = field(default_factory=threading.Event)

    def on_connected(self) -> None:
        self.ups += 1
        self.is_up.set()

    def on_disconnected(self) -> None:
        self.downs += 1
        self.is_up.clear()

    def was_lost_more_than(self, times: int) -> bool:
        return self.downs > times

    def on_message(self, channel: DownChannel, payload: bytes) -> None:
        """Nothing is sent to it."""


@contextmanager
def client(broker: Mosquitto, protocol: str) -> Iterator[tuple[MqttClient, Listener]]:
    settings = MqttSettings.model_validate(
        {"servers": [f"mqtt://127.0.0.1:{broker.port}"], "protocol": protocol, "connect_timeout": "5s"}
    )
    listener, status = Listener(), StatusPayloads(b"offline", lambda: b"online", lambda: b"offline")
    made = MqttClient("edge-1", settings, None, status, listener)
    made.start()
    try:
        yield made, listener
    finally:
        made.stop()


def sent(one: MqttClient, payload: bytes) -> None:
    """Publishes and waits for the PUBACK."""
    confirmed = threading.Event()
    assert one.publish(UpChannel.EVENT, payload, lambda _delivered: confirmed.set())
    wait_for(confirmed.is_set, "the PUBACK")


def test_a_packet_above_the_announced_maximum_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    with Mosquitto(extra_conf=f"max_packet_size {MOST}") as broker, client(broker, "5") as (one, listener):
        wait_for(listener.is_up.is_set, "connected")
        most = one.max_payload(UpChannel.EVENT)
        assert MOST - 100 < most < MOST
        for _ in range(3):
            assert not one.publish(UpChannel.EVENT, LARGE)
        told = [record for record in caplog.records if "max_packet_size" in record.getMessage()]
        assert [record.levelno for record in told] == [logging.ERROR]
        sent(one, b"x" * most)
        assert (listener.ups, listener.downs) == (1, 0)


def test_a_broker_that_cannot_tell_does_not_make_it_reconnect_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """MQTT 3.1.1 has no way to say it: the connection ends, again and again, after the same message."""
    monkeypatch.setattr(random, "random", lambda: 0.0)  # no waits between attempts
    with Mosquitto(extra_conf=f"max_packet_size {MOST}") as broker, client(broker, "3.1.1") as (one, listener):
        losses = 0
        # A loss before the message was on its way does not count for the client.
        while not 0 < one.max_payload(UpChannel.EVENT) < len(LARGE) and losses < 3 * LOSSES:
            if one.publish(UpChannel.EVENT, LARGE):
                wait_for(partial(listener.was_lost_more_than, losses), "the connection is lost")
                losses = listener.downs
            time.sleep(0.01)
        assert losses >= LOSSES
        wait_for(listener.is_up.is_set, "connected")
        assert not one.publish(UpChannel.EVENT, LARGE)
        assert one.max_payload(UpChannel.EVENT) >= SUSPICIOUS_BYTES
        sent(one, b"small")


@pytest.mark.parametrize("protocol", ["5"])
def test_without_retained_messages_it_says_what_to_set(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    with Mosquitto(extra_conf="retain_available false") as broker, client(broker, protocol):
        wait_for(lambda: "mqtt.retain_available = true" in caplog.text, "the reason")
    assert "(154)" in caplog.text
