"""Our one packet, read back by paho and by the codec of the stand-in."""

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.mqtt.packets import publish_packet

TOPICS = st.text(st.characters(codec="utf-8", exclude_characters="\x00#+"), min_size=1, max_size=60)


@given(TOPICS, st.binary(max_size=20_000), st.none() | st.integers(1, 2**32 - 1))
def test_it_reads_back(topic: str, payload: bytes, expiry: int | None) -> None:
    raw = publish_packet(topic, payload, expiry, five=True)
    packet, size = mqtt5.read(memoryview(raw))
    assert size == len(raw)
    assert isinstance(packet, mqtt5.PublishPacket)
    assert (packet.topic, packet.payload, packet.message_expiry_interval) == (topic, payload, expiry)
    assert (int(packet.qos), packet.retain, packet.duplicate) == (0, False, False)


@given(TOPICS, st.binary(max_size=300))
def test_the_older_protocol_has_no_properties(topic: str, payload: bytes) -> None:
    name = topic.encode()
    raw = publish_packet(topic, payload, 60, five=False)
    assert raw.endswith(len(name).to_bytes(2, "big") + name + payload)
    assert len(raw) == len(name) + len(payload) + (4 if len(name) + len(payload) + 2 < 128 else 5)


@pytest.mark.parametrize("topic", ["", "x" * 65_536])
def test_topics_that_cannot_be(topic: str) -> None:
    with pytest.raises(ValueError, match="topic"):
        publish_packet(topic, b"", None, five=True)
