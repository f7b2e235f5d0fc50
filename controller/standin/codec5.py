"""Decodes MQTT 5 frames with the codec library, after validating their strings.

The library panics on strings that are not UTF-8 instead of raising, so such frames must not reach it. [MQTT-1.5.4-1]
"""

import mqtt5

from controller.standin.codec311 import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from controller.standin.frames import FrameError, decode_length

# the size of a property's value in bytes
_FIXED = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
_TEXT = frozenset({0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F})
_BINARY = frozenset({0x09, 0x16})
_SUBSCRIPTION_ID, _USER_PROPERTY = 0x0B, 0x26
_WILL, _PASSWORD, _USERNAME = 0x04, 0x40, 0x80


def decode(frame: bytes) -> mqtt5.Packet:
    """Decodes one MQTT 5 frame.

    Raises:
        FrameError: the frame is malformed.
    """
    try:
        _TextValidator(frame).check()
        packet, size = mqtt5.read(memoryview(frame))
    except (ValueError, IndexError) as error:
        raise FrameError(str(error)) from error
    if size != len(frame):
        raise FrameError("bytes after the packet")
    return packet


class _TextValidator:
    """Walks over a frame and decodes its strings."""

    __slots__ = ("_at", "_end", "_frame")

    def __init__(self, frame: bytes) -> None:
        decoded = decode_length(frame, 1)
        if decoded is None or sum(decoded) != len(frame):
            raise FrameError("the remaining length does not fit the frame")
        self._frame, self._at, self._end = frame, decoded[1], len(frame)

    def check(self) -> None:
        first = self._frame[0]
        kind = first >> 4
        if kind == PUBLISH:
            self._text()
            self._skip(2 if first & 0x06 else 0)
            self._properties()
        elif kind == CONNECT:
            self._connect()
        elif kind in (SUBSCRIBE, UNSUBSCRIBE):
            self._skip(2)
            self._properties()
            while self._at < self._end:
                self._text()
                self._skip(1 if kind == SUBSCRIBE else 0)
        elif PUBACK <= kind <= PUBCOMP:
            self._skip(2)
            self._reason()
        elif kind >= DISCONNECT:
            self._reason()

    def _connect(self) -> None:
        self._text()
        self._skip(2)
        flags = self._frame[self._at - 1]
        self._skip(2)
        self._properties()
        self._text()
        if flags & _WILL:
            self._properties()
            self._text()
            self._binary()
        if flags & _USERNAME:
            self._text()
        if flags & _PASSWORD:
            self._binary()

    def _reason(self) -> None:
        """Reads an optional reason code and optional properties."""
        if self._at < self._end:
            self._skip(1)
        if self._at < self._end:
            self._properties()

    def _properties(self) -> None:
        decoded = decode_length(self._frame, self._at)
        if decoded is None or sum(decoded) > self._end:
            raise FrameError("truncated properties")
        length, self._at = decoded
        stop = self._at + length
        while self._at < stop:
            self._property()
        if self._at != stop:
            raise FrameError("properties exceed their length")

    def _property(self) -> None:
        name = self._frame[self._at]
        self._skip(1)
        if name in _TEXT:
            self._text()
        elif name == _USER_PROPERTY:
            self._text()
            self._text()
        elif name in _BINARY:
            self._binary()
        elif name == _SUBSCRIPTION_ID:
            decoded = decode_length(self._frame, self._at)
            if decoded is None:
                raise FrameError("truncated subscription identifier")
            self._at = decoded[1]
        elif name in _FIXED:
            self._skip(_FIXED[name])
        else:
            raise FrameError(f"unknown property {name}")

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > self._end:
            raise FrameError("truncated packet")

    def _binary(self) -> bytes:
        start = self._at + 2
        self._skip(2)
        self._skip(int.from_bytes(self._frame[start - 2 : start]))
        return self._frame[start : self._at]

    def _text(self) -> None:
        self._binary().decode()
