"""The one packet we encode ourselves: a PUBLISH at QoS 0, sent for every report that is taken.

paho makes an object with a lock for each message and one for its properties; here nothing has to be remembered.
"""

from functools import lru_cache
from typing import Final

_PUBLISH_QOS_0: Final = 0x30  # [MQTT-3.3.1]
_MESSAGE_EXPIRY: Final = (
    b"\x05\x02"  # five bytes of properties: the expiry's identifier and four bytes [MQTT-3.3.2.3.3]
)
_NO_PROPERTIES: Final = b"\x00"
_MAX_REMAINING: Final = 268_435_455  # four bytes of seven bits [MQTT-1.5.5]


def publish_packet(topic: str, payload: bytes, expiry_seconds: int | None, *, five: bool) -> bytes:
    """A PUBLISH at QoS 0 without retain; 3.1.1 (`five` is false) has no properties and knows no expiry.

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
