"""The translation between MQTT 3.1.1 and 5: frames built here by the specification, packets of the MQTT 5 library."""

import struct

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.standin import codec311
from controller.standin.codec5 import decode
from controller.standin.codec311 import connack_code, from_v5, protocol_level, to_v5
from controller.standin.frames import FrameBuffer, FrameError, FrameTooLargeError, decode_length, encode_length

# The codec library does not write topics with wildcards.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00+#"), min_size=1, max_size=40)
PAYLOAD = st.binary(max_size=400)
IDS = st.integers(1, 65_535)
QOS = st.sampled_from([0, 1, 2])


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("!H", len(data)) + data


def _frame(first: int, body: bytes) -> bytes:
    return bytes((first,)) + encode_length(len(body)) + body


@given(TEXT, PAYLOAD, QOS, IDS, st.booleans(), st.booleans())
def test_publish_round_trips(topic: str, payload: bytes, qos: int, packet_id: int, retain: bool, dup: bool) -> None:
    head = struct.pack("!H", packet_id) if qos else b""
    first = 0x30 | (8 if dup and qos else 0) | qos << 1 | int(retain)
    frame = _frame(first, _string(topic) + head + payload)
    packet = decode(to_v5(frame))
    assert isinstance(packet, mqtt5.PublishPacket)
    assert (packet.topic, packet.payload, int(packet.qos), packet.retain) == (topic, payload, qos, retain)
    assert packet.packet_id == (packet_id if qos else None)
    assert from_v5(packet.write()) == frame


@given(TEXT, PAYLOAD, IDS)
def test_mqtt_5_properties_are_left_out(topic: str, payload: bytes, packet_id: int) -> None:
    with_properties = mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE,
        packet_id=packet_id,
        content_type="x" * 200,
        message_expiry_interval=9,
        user_properties=[("k", "v")],
    )
    plain = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=packet_id)
    assert from_v5(with_properties.write()) == from_v5(plain.write())


@given(TEXT, st.booleans(), st.integers(0, 65_535), st.none() | TEXT, st.none() | PAYLOAD, st.none() | TEXT)
def test_connect_is_decoded(
    clientid: str, clean: bool, keepalive: int, username: str | None, password: bytes | None, will: str | None
) -> None:
    flags = 2 * clean | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    flags |= 0x2C if will is not None else 0
    body = _string("MQTT") + bytes((4, flags)) + struct.pack("!H", keepalive) + _string(clientid)
    body += b"" if will is None else _string(will) + _string(b"gone")
    body += b"" if username is None else _string(username)
    body += b"" if password is None else _string(password)
    frame = _frame(0x10, body)
    assert protocol_level(frame) == 4
    packet = decode(to_v5(frame))
    assert isinstance(packet, mqtt5.ConnectPacket)
    assert (packet.client_id, packet.clean_start, packet.keep_alive) == (clientid, clean, keepalive)
    assert (packet.username, packet.password) == (username, password)
    if will is None:
        assert packet.will is None
    else:
        assert packet.will is not None
        assert (packet.will.topic, packet.will.payload, int(packet.will.qos)) == (will, b"gone", 1)
        assert packet.will.retain


@given(TEXT, PAYLOAD, st.integers(0, 2**32 - 1), st.lists(st.tuples(TEXT, TEXT), max_size=3), st.binary(max_size=20))
def test_mqtt_5_packets_round_trip(
    text: str, payload: bytes, number: int, pairs: list[tuple[str, str]], data: bytes
) -> None:
    will = mqtt5.Will(text, payload=payload, will_delay_interval=number, content_type=text, correlation_data=data)
    packets = (
        mqtt5.ConnectPacket(
            text, username=text, password=data, will=will, user_properties=pairs, session_expiry_interval=number
        ),
        mqtt5.PublishPacket(text, payload, response_topic=text, correlation_data=data, user_properties=pairs),
        mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(text)], subscription_id=1 + number % 1000, user_properties=pairs),
        mqtt5.UnsubscribePacket(1, [text], user_properties=pairs),
        mqtt5.PubAckPacket(1, reason_str=text, user_properties=pairs),
        mqtt5.DisconnectPacket(reason_str=text, session_expiry_interval=number),
    )
    for packet in packets:
        assert decode(packet.write()) == packet


@given(st.lists(st.tuples(TEXT, QOS), min_size=1, max_size=5), IDS)
def test_subscribe_and_unsubscribe_are_decoded(filters: list[tuple[str, int]], packet_id: int) -> None:
    head = struct.pack("!H", packet_id)
    subscribe = decode(to_v5(_frame(0x82, head + b"".join(_string(t) + bytes((q,)) for t, q in filters))))
    assert isinstance(subscribe, mqtt5.SubscribePacket)
    assert [(f.pattern, int(f.max_qos)) for f in subscribe.topic_filters] == filters
    unsubscribe = decode(to_v5(_frame(0xA2, head + b"".join(_string(t) for t, _ in filters))))
    assert isinstance(unsubscribe, mqtt5.UnsubscribePacket)
    assert unsubscribe.patterns == [t for t, _ in filters]


@given(IDS)
def test_acknowledgements_keep_only_their_packet_id(packet_id: int) -> None:
    encoded_id = struct.pack("!H", packet_id)
    puback = mqtt5.PubAckPacket(packet_id, reason_code=mqtt5.PubAckReasonCode.NOT_AUTHORIZED)
    assert from_v5(puback.write()) == b"\x40\x02" + encoded_id
    codes = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE, mqtt5.SubAckReasonCode.NOT_AUTHORIZED]
    assert from_v5(mqtt5.SubAckPacket(packet_id, codes).write()) == b"\x90\x04" + encoded_id + b"\x01\x80"
    unsuback = mqtt5.UnsubAckPacket(packet_id, [mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED])
    assert from_v5(unsuback.write()) == b"\xb0\x02" + encoded_id


@pytest.mark.parametrize(("reason", "code"), [(0, 0), (138, 5), (135, 5), (134, 4), (133, 2), (132, 1), (137, 3)])
def test_connack_reasons_become_3_1_1_return_codes(reason: int, code: int) -> None:
    assert connack_code(reason) == code
    packet = mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode(reason), receive_max=5)
    assert from_v5(packet.write()) == bytes((0x20, 2, 0, code))


def test_packets_without_a_3_1_1_form_are_dropped_or_rejected() -> None:
    assert from_v5(mqtt5.DisconnectPacket().write()) == b""
    with pytest.raises(FrameError):
        to_v5(b"\xf0\x00")
    with pytest.raises(FrameError):
        from_v5(b"\x82\x02\x00\x01")


@given(st.binary(min_size=2, max_size=60))
def test_arbitrary_bytes_raise_only_frame_errors(data: bytes) -> None:
    for decoder in (protocol_level, to_v5, from_v5, decode):
        try:
            decoder(data)
        except FrameError:
            continue


@pytest.mark.parametrize(
    "frame",
    [
        b"\x30\x04\x00\x01\xff\x00",  # the topic is not UTF-8
        b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01\xff",  # the client id is not UTF-8
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x82\x07\x00\x01\x00\x00\x01\xff\x00",  # the filter is not UTF-8
        b"\x30\x09\x00\x01a\x05\x03\x00\x02\xc3\x28",  # the content type is not UTF-8
        b"\x30\x05\x00\x01a\x01\x7f",  # an unknown property
        b"\x30\x03\x00\x05a",
        b"\x82\x02\x00\x01",
    ],
)
def test_malformed_packets_are_rejected(frame: bytes) -> None:
    with pytest.raises(FrameError):
        decode(frame)


def test_other_protocols_are_rejected() -> None:
    with pytest.raises(FrameError):
        protocol_level(b"\x10\x0c\x00\x04HTTP\x04\x02\x00\x3c\x00\x00")
    with pytest.raises(FrameError):
        protocol_level(b"\xc0\x00")
    mqtt_3_1 = b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a"
    assert protocol_level(mqtt_3_1) == 3
    assert isinstance(decode(codec311.to_v5(mqtt_3_1)), mqtt5.ConnectPacket)


@given(st.integers(0, 268_435_455))
def test_remaining_lengths_round_trip(value: int) -> None:
    data = b"x" + encode_length(value)
    assert decode_length(data, 1) == (value, len(data))


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_frames_are_split_correctly_for_any_chunk_size(bodies: list[bytes], step: int) -> None:
    frames = [_frame(0x30, body) for body in bodies]
    stream = b"".join(frames)
    buffer = FrameBuffer()
    split = [frame for at in range(0, len(stream), step) for frame in buffer.feed(stream[at : at + step])]
    assert split == frames


def test_an_oversized_frame_and_an_endless_length_are_rejected() -> None:
    with pytest.raises(FrameTooLargeError):
        list(FrameBuffer(max_packet=10).feed(b"\x30\x0b"))
    with pytest.raises(FrameError):
        list(FrameBuffer().feed(b"\x30\xff\xff\xff\xff\x01"))
