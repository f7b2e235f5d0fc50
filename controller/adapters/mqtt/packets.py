"""Encoding and decoding of PUBLISH, the packet of every report and every receipt; paho handles every other packet.

paho creates an object with a lock for each message and another for its properties, which costs more.
"""

from functools import lru_cache
from typing import Final, NamedTuple

_PUBLISH: Final = 3  # the type, in the upper half of the first byte [MQTT-2.1.2]
_PUBLISH_QOS_0: Final = 0x30  # [MQTT-3.3.1]
_MESSAGE_EXPIRY: Final = (
    b"\x05\x02"  # five bytes of properties: the expiry's identifier and four bytes [MQTT-3.3.2.3.3]
)
_NO_PROPERTIES: Final = b"\x00"
_MAX_REMAINING: Final = 268_435_455  # four bytes of seven bits [MQTT-1.5.5]


def publish_packet(topic: str, payload: bytes, expiry_seconds: int | None, *, five: bool) -> bytes:
    """Returns a PUBLISH at QoS 0 without retain; 3.1.1 (`five` is false) has no properties, so no expiry.

    Raises:
        ValueError: the topic or all of it is too long for MQTT.
    """
    name = topic.encode()
    properties = _properties(expiry_seconds) if five else b""
    if not name or len(name) > 0xFFFF:
        raise ValueError("a topic has between 1 and 65535 bytes")
    remaining = 2 + len(name) + len(properties) + len(payload)
    return b"".join((_header(remaining), len(name).to_bytes(2, "big"), name, properties, payload))


@lru_cache(maxsize=256)
def _properties(expiry_seconds: int | None) -> bytes:
    return _NO_PROPERTIES if expiry_seconds is None else _MESSAGE_EXPIRY + max(1, expiry_seconds).to_bytes(4, "big")


@lru_cache(maxsize=4096)
def _header(remaining: int) -> bytes:
    if remaining > _MAX_REMAINING:
        raise ValueError(f"{remaining} bytes are too many for one packet")
    header = bytearray([_PUBLISH_QOS_0])
    while True:
        remaining, digit = divmod(remaining, 128)
        header.append(digit | (0x80 if remaining else 0))
        if not remaining:
            return bytes(header)


class InboundPublish(NamedTuple):
    """A received PUBLISH at QoS 0 or 1; `topic` is not decoded."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int


def packet_end(data: bytes, at: int) -> int | None:
    """Returns the end of the packet that begins at `at`, which may be after `data`; None if its length is incomplete.

    Raises:
        ValueError: its length has more than four bytes [MQTT-1.5.5-1].
    """
    length = shift = 0
    for place in range(at + 1, min(at + 5, len(data))):
        digit = data[place]
        length |= (digit & 0x7F) << shift
        if digit < 0x80:
            return place + 1 + length
        shift += 7
    if len(data) > at + 4:
        raise ValueError("the length of a packet has more than four bytes")
    return None


def as_publish(data: bytes, at: int, end: int, *, five: bool) -> InboundPublish | None:
    """Returns the PUBLISH `data[at:end]`; None if it is another packet, at QoS 2, or malformed: paho handles those."""
    first = data[at]
    qos = first >> 1 & 3
    if first >> 4 != _PUBLISH or qos > 1:
        return None
    at += 2
    while data[at - 1] & 0x80:
        at += 1
    body = at + 2
    at = body + (data[at] << 8 | data[at + 1]) if body <= end else end + 1
    packet_id = 0
    topic_end = at
    if qos and at + 2 <= end:
        packet_id = data[at] << 8 | data[at + 1]
        at += 2
    if five and at < end:
        at = _behind_properties(data, at, end)
    # A packet id is never zero; without properties MQTT 5 still has their length [MQTT-2.2.1-3] [MQTT-2.2.2-1].
    if at > end or (qos and not packet_id) or (five and at == topic_end + 2 * qos):
        return None
    return InboundPublish(data[body:topic_end], data[at:end], qos, bool(first & 1), bool(first & 8), packet_id)


def _behind_properties(data: bytes, at: int, end: int) -> int:
    """Skips the properties; none matters, as the client offers no topic alias."""
    if data[at] < 0x80:
        return at + 1 + data[at]
    length = shift = 0
    for place in range(at, min(at + 4, end)):
        length |= (data[place] & 0x7F) << shift
        if data[place] < 0x80:
            return place + 1 + length
        shift += 7
    return end + 1
