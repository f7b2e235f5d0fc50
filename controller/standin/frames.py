"""Cuts the byte stream of a connection into MQTT frames and refuses those that are too large."""

from dataclasses import dataclass, field

from controller.standin.limits import MAX_PACKET_BYTES

_MAX_LENGTH_BYTES = 4


class FrameError(ValueError):
    """The stream is no MQTT; the connection cannot be read any further."""


class FrameTooLargeError(FrameError):
    """A frame exceeds the broker's Maximum Packet Size."""


def encode_length(value: int) -> bytes:
    """A remaining length on the wire [MQTT-1.5.5]."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)


def decode_length(data: bytes | bytearray, offset: int) -> tuple[int, int] | None:
    """The number at the offset and the offset behind it; None when bytes are missing.

    Raises:
        FrameError: when it takes more than four bytes.
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
    """Collects bytes until whole frames can be given out; holds at most one frame and one read."""

    max_packet: int = MAX_PACKET_BYTES
    _data: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[bytes]:
        """All frames that are complete now, each with its fixed header.

        Raises:
            FrameError: when a length is malformed.
            FrameTooLargeError: when a frame is larger than allowed; frames before it are lost with it.
        """
        self._data += data
        frames: list[bytes] = []
        start = 0
        while start + 1 < len(self._data):
            decoded = decode_length(self._data, start + 1)
            if decoded is None:
                break
            length, body = decoded
            if body - start + length > self.max_packet:
                raise FrameTooLargeError(f"{length} bytes")
            if body + length > len(self._data):
                break
            frames.append(bytes(self._data[start : body + length]))
            start = body + length
        if start:
            del self._data[:start]
        return frames
