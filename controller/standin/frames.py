"""Splits the byte stream of a connection into MQTT frames; rejects frames above the size limit."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from controller.standin.options import MAX_PACKET_BYTES

_MAX_LENGTH_BYTES = 4


class FrameError(ValueError):
    """The stream is not MQTT; the connection cannot be read any further."""


class FrameTooLargeError(FrameError):
    """A frame exceeds the broker's Maximum Packet Size."""


def encode_length(value: int) -> bytes:
    """Encodes a variable byte integer. [MQTT-1.5.5]"""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)


def decode_length(data: bytes | bytearray, offset: int) -> tuple[int, int] | None:
    """Decodes a variable byte integer; returns it and the offset after it, or None when bytes are missing.

    Raises:
        FrameError: more than four bytes.
    """
    value = 0
    for index in range(_MAX_LENGTH_BYTES):
        if offset + index >= len(data):
            return None
        byte = data[offset + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, offset + index + 1
    raise FrameError("variable length takes more than four bytes")


@dataclass(slots=True)
class FrameBuffer:
    """Buffers bytes until a frame is complete; holds at most one frame and one read."""

    max_packet: int = MAX_PACKET_BYTES
    _data: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the complete frames, each with its fixed header.

        Raises:
            FrameError: a malformed length, after the frames before it were yielded.
            FrameTooLargeError: a frame above the limit, likewise.
        """
        self._data += data
        while len(self._data) > 1:
            decoded = decode_length(self._data, 1)
            if decoded is None:
                return
            length, body = decoded
            if body + length > self.max_packet:
                raise FrameTooLargeError(f"{length} bytes")
            if body + length > len(self._data):
                return
            frame = bytes(self._data[: body + length])
            del self._data[: body + length]
            yield frame
