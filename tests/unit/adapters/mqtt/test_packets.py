"""Our one packet, held against the codec of the stand-in in both directions."""

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.mqtt.packets import InboundPublish, as_publish, packet_end, publish_packet

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


@st.composite
def published(draw: st.DrawFn) -> mqtt5.PublishPacket:
    """What a broker may send us, with every kind of property."""
    qos = draw(st.sampled_from([mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE]))
    confirmed = qos is mqtt5.QoS.AT_LEAST_ONCE
    return mqtt5.PublishPacket(
        topic=draw(TOPICS),
        payload=draw(st.binary(max_size=300)),
        qos=qos,
        retain=draw(st.booleans()),
        packet_id=draw(st.integers(1, 65_535)) if confirmed else None,
        duplicate=confirmed and draw(st.booleans()),
        message_expiry_interval=draw(st.none() | st.integers(1, 1000)),
        content_type=draw(st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=200)),
        user_properties=draw(st.lists(st.tuples(st.just("key"), st.just("v" * 90)), max_size=3)),
    )


@given(published(), st.binary(max_size=5), st.binary(max_size=5))
def test_it_reads_what_a_broker_sends(packet: mqtt5.PublishPacket, before: bytes, behind: bytes) -> None:
    raw = bytes(packet.write())
    data = before + raw + behind
    end = packet_end(data, len(before))
    assert end == len(before) + len(raw)
    assert as_publish(data, len(before), end, five=True) == InboundPublish(
        packet.topic.encode(),
        packet.payload or b"",
        int(packet.qos),
        packet.retain,
        packet.duplicate,
        packet.packet_id or 0,
    )


@given(TOPICS, st.binary(max_size=300), st.integers(1, 65_535))
def test_it_reads_the_older_protocol(topic: str, payload: bytes, packet_id: int) -> None:
    body = len(topic.encode()).to_bytes(2) + topic.encode() + packet_id.to_bytes(2) + payload
    quiet = publish_packet(topic, b"??" + payload, None, five=False)
    raw = b"\x32" + quiet[1 : len(quiet) - len(body)] + body
    assert packet_end(raw, 0) == len(raw)
    assert as_publish(raw, 0, len(raw), five=False) == InboundPublish(
        topic.encode(), payload, 1, retain=False, dup=False, packet_id=packet_id
    )


@given(st.binary(min_size=2, max_size=40), st.booleans())
def test_anything_else_is_left_to_paho(noise: bytes, five: bool) -> None:
    raw = bytes([noise[0], len(noise) - 2]) + noise[2:]
    found = as_publish(raw, 0, len(raw), five=five)
    if found is not None:
        assert raw[0] >> 4 == 3
        assert found.qos < 2
        assert found.topic in raw
        assert raw.endswith(found.payload)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x34\x06\x00\x01t\x00\x01\x00",  # QoS 2
        b"\x32\x06\x00\x01t\x00\x00\x00",  # packet id 0
        b"\x30\x03\x00\x01t",  # no length of properties
        b"\x32\x05\x00\x01t\x00\x01",  # the same at QoS 1
        b"\x30\x04\x00\x01t\x05",  # properties longer than the packet
        b"\x30\x03\x00\x09t",  # a topic longer than the packet
        b"\x30\x01\x00",
        b"\x40\x02\x00\x01",
    ],
)
def test_what_is_not_plain_is_left_to_paho(raw: bytes) -> None:
    assert as_publish(raw, 0, len(raw), five=True) is None
