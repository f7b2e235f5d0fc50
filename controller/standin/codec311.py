"""Converts MQTT 3.1.1 frames to MQTT 5 frames and back, so that one codec serves both protocols. Pure.

The formats differ by the properties, which 3.1.1 does not have, and by the reason codes.
"""

from controller.standin.frames import FrameError, decode_length, encode_length

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = 5, 6, 7, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 10, 11, 12, 13, 14, 15

_ACKS = frozenset({PUBACK, PUBREC, PUBREL, PUBCOMP})
_FLAG_WILL = 0x04
_LEVEL_311, _LEVEL_31, _LEVEL_5 = 4, 3, 5
_NAMES = {_LEVEL_31: b"MQIsdp", _LEVEL_311: b"MQTT", _LEVEL_5: b"MQTT"}

# MQTT 5 CONNACK reason -> 3.1.1 return code, as EMQX maps them
_CONNACK_COMPAT = {
    0x80: 1, 0x81: 1, 0x82: 1, 0x83: 1, 0x84: 1, 0x85: 2, 0x86: 4, 0x87: 5, 0x88: 3,
    0x89: 3, 0x8A: 5, 0x8C: 4, 0x97: 3, 0x9C: 3, 0x9D: 3, 0x9F: 3,
}  # fmt: skip
_CONNACK_OTHER = 5
_SUBACK_FAILURE = 0x80


def connack_code(reason: int) -> int:
    """Returns the 3.1.1 return code for an MQTT 5 reason code."""
    return 0 if reason == 0 else _CONNACK_COMPAT.get(reason, _CONNACK_OTHER)


def protocol_level(connect: bytes) -> int:
    """Returns the protocol level of a CONNECT frame.

    Raises:
        FrameError: not a CONNECT, or of another protocol.
    """
    body = _body(connect)
    if connect[0] >> 4 != CONNECT:
        raise FrameError("the first packet is not a CONNECT")
    name, offset = _string(connect, body)
    if offset >= len(connect):
        raise FrameError("CONNECT ends before its protocol level")
    level = connect[offset] & 0x7F  # the high bit is the bridge flag of 3.1.1
    if _NAMES.get(level, name) != name:
        raise FrameError("unknown protocol name")
    return level


def to_v5(frame: bytes) -> bytes:
    """Converts a client's 3.1.1 frame to MQTT 5.

    Raises:
        FrameError: the frame is truncated, or a 3.1.1 client does not send its type.
    """
    kind = frame[0] >> 4
    if kind in _ACKS:
        if len(frame) - _body(frame) != 2:
            raise FrameError("an acknowledgement of 3.1.1 has two bytes")
        return frame
    if kind in (PINGREQ, DISCONNECT):
        if len(frame) != 2:
            raise FrameError("a packet type without content has content")
        return frame
    if kind == CONNECT:
        return _connect_to_v5(frame)
    if kind == PUBLISH:
        _, offset = _string(frame, _body(frame))
        offset += 2 if frame[0] & 0x06 else 0
        return _insert(frame, offset)
    if kind in (SUBSCRIBE, UNSUBSCRIBE):
        return _insert(frame, _body(frame) + 2)
    raise FrameError(f"packet type {kind} does not come from a 3.1.1 client")


def from_v5(frame: bytes) -> bytes:
    """Converts the broker's MQTT 5 frame to 3.1.1; returns empty bytes when 3.1.1 has no such packet.

    Raises:
        FrameError: the frame is malformed.
    """
    kind = frame[0] >> 4
    if kind in (PINGRESP, PINGREQ):
        return frame
    if kind in (DISCONNECT, AUTH):
        return b""
    body = _body(frame)
    if kind == CONNACK:
        return bytes((frame[0], 2, frame[body] & 1, connack_code(frame[body + 1])))
    if kind in _ACKS:
        return frame[:1] + b"\x02" + frame[body : body + 2]
    if kind == UNSUBACK:
        return frame[:1] + b"\x02" + frame[body : body + 2]
    if kind == SUBACK:
        codes = frame[_skip_properties(frame, body + 2) :]
        granted = bytes(code if code <= 2 else _SUBACK_FAILURE for code in codes)
        return _frame(frame[0], frame[body : body + 2] + granted)
    if kind == PUBLISH:
        _, offset = _string(frame, body)
        offset += 2 if frame[0] & 0x06 else 0
        return _frame(frame[0], frame[body:offset] + frame[_skip_properties(frame, offset) :])
    raise FrameError(f"packet type {kind} does not come from a broker")


def _connect_to_v5(frame: bytes) -> bytes:
    body = _body(frame)
    _, offset = _string(frame, body)
    if len(frame) < offset + 4:
        raise FrameError("CONNECT ends before its keep alive")
    flags = frame[offset + 1]
    head = b"\x00\x04MQTT\x05" + frame[offset + 1 : offset + 4] + b"\x00"
    client_start = offset + 4
    _, client_end = _string(frame, client_start)
    rest = frame[client_end:]
    if flags & _FLAG_WILL:
        rest = b"\x00" + rest
    return _frame(frame[0], head + frame[client_start:client_end] + rest)


def _body(frame: bytes) -> int:
    decoded = decode_length(frame, 1)
    if decoded is None or decoded[1] + decoded[0] != len(frame):
        raise FrameError("the remaining length does not fit the frame")
    return decoded[1]


def _string(frame: bytes, offset: int) -> tuple[bytes, int]:
    start = offset + 2
    if start > len(frame):
        raise FrameError("a string lacks its length")
    end = start + int.from_bytes(frame[offset:start])
    if end > len(frame):
        raise FrameError("truncated string")
    return frame[start:end], end


def _skip_properties(frame: bytes, offset: int) -> int:
    decoded = decode_length(frame, offset)
    if decoded is None or sum(decoded) > len(frame):
        raise FrameError("truncated properties")
    return sum(decoded)


def _insert(frame: bytes, offset: int) -> bytes:
    body = _body(frame)
    if offset > len(frame):
        raise FrameError("the packet ends before its packet identifier")
    return _frame(frame[0], frame[body:offset] + b"\x00" + frame[offset:])


def _frame(first: int, body: bytes) -> bytes:
    return bytes((first,)) + encode_length(len(body)) + body
