"""An MQTT socket: decodes and encodes packets, applies timeouts, closes."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

import mqtt5

from controller.standin import codec311
from controller.standin.channel import Channel
from controller.standin.client import ClientEndpoint
from controller.standin.codec5 import decode
from controller.standin.frames import FrameBuffer, FrameTooLargeError
from controller.standin.options import (
    IDLE_TIMEOUT_SECONDS,
    KEEPALIVE_MULTIPLIER,
    MAX_CONNECTIONS_PER_NODE,
    MAX_OUTBOUND_BYTES,
)
from controller.standin.registry import ClientRegistry
from controller.standin.session import OutgoingPacket

_LINGER_SECONDS = 5.0  # for the peer to read the last packet before the socket is aborted
_V5 = 5
_MALFORMED, _TOO_LARGE = 129, 149


class Connection(asyncio.Protocol):
    """The transport of one socket; the channel processes the packets."""

    def __init__(
        self, registry: ClientRegistry, node: str, listener: str, sockport: int, live: set["Connection"]
    ) -> None:
        self._registry = registry
        self._node, self._listener, self._sockport = node, listener, sockport
        self._live = live
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._frames = FrameBuffer()
        self._out: list[bytes] = []
        self._closing = False
        self._hung = False
        self._held = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._seen = 0.0
        self.version = 0
        self.channel: Channel | None = None

    # asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit
        peer: tuple[Any, ...] = transport.get_extra_info("peername") or ("0.0.0.0", 0)  # noqa: S104 -- placeholder for a socket that is already gone
        own: tuple[Any, ...] = transport.get_extra_info("sockname") or peer
        endpoint = ClientEndpoint(self._node, self._listener, str(own[0]), self._sockport, str(peer[0]), int(peer[1]))
        self.channel = Channel(self._registry, self, endpoint, _common_name(transport))
        if len(self._live) >= MAX_CONNECTIONS_PER_NODE:
            self.abort()
            return
        self._live.add(self)
        self._timer = self._loop.call_later(IDLE_TIMEOUT_SECONDS, self._idle)
        if self._registry.state.nodes[self._node].frozen:
            self.hang()

    def hang(self) -> None:
        """Neither takes nor sends anything until `resume`."""
        self._hung = True

    def resume(self) -> None:
        """Goes on where it was."""
        self._hung, self._seen = False, self._loop.time()
        held, self._held = bytes(self._held), bytearray()
        if held:
            self.data_received(held)
        self._flush()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._live.discard(self)
        self._stop_timer()
        self._closing = True
        if self.channel is not None:
            self.channel.on_socket_closed("ssl_closed" if self._listener.startswith("ssl") else "tcp_closed")
            self.channel = None

    def data_received(self, data: bytes) -> None:
        if self._closing or self.channel is None:
            return
        if self._hung:
            self._held += data
            if len(self._held) > MAX_OUTBOUND_BYTES:
                self.abort()
            return
        self._seen = self._loop.time()
        try:
            for frame in self._frames.feed(data):
                if self.channel is not None:
                    self._receive(self.channel, frame)
        except FrameTooLargeError:
            self._protocol_failure(_TOO_LARGE, "frame_too_large")
        except ValueError:
            self._protocol_failure(_MALFORMED, "malformed_packet")

    def _receive(self, channel: Channel, frame: bytes) -> None:
        if not self.version:
            self.version = codec311.protocol_level(frame)
            if self.version not in (3, 4, _V5):
                channel.reject_version(self.version)
                return
        packet = decode(frame if self.version == _V5 else codec311.to_v5(frame))
        channel.count_received(len(frame))
        channel.handle(packet)

    # ChannelTransport ---------------------------------------------------------------------------------------------

    def send(self, packet: mqtt5.Packet) -> int:
        """Queues a packet until the end of this loop iteration; returns its size in bytes."""
        return self.send_frame(packet.write())

    def send_frame(self, frame: bytes) -> int:
        """Queues an encoded MQTT 5 packet until the end of this loop iteration; returns its size in bytes."""
        data = frame
        if self.version != _V5:
            data = codec311.from_v5(data)
        if not self._closing and data:
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(data)
        return len(data)

    def _flush(self) -> None:
        if not self._out or self._transport is None or self._hung:
            return
        data, self._out = b"".join(self._out), []
        if self._transport.is_closing():
            return  # closed in this loop iteration: uvloop rejects further writes
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_OUTBOUND_BYTES:
            self._transport.abort()

    def send_messages(self, out: Sequence[OutgoingPacket]) -> None:
        if self.channel is not None:
            self.channel.send_messages(out)

    def start_keepalive(self, keepalive: int) -> None:
        """Disconnects the client after 1.5 keep-alive intervals of silence; 0 means never. [MQTT-3.1.2-22]"""
        self._stop_timer()
        if keepalive:
            self._watch(keepalive * KEEPALIVE_MULTIPLIER)

    def _watch(self, limit: float) -> None:
        silent = 0.0 if self._hung else self._loop.time() - self._seen
        if silent >= limit and self.channel is not None:
            self.channel.disconnect_client(141, "keepalive_timeout")
            return
        self._timer = self._loop.call_later(limit - silent, self._watch, limit)

    def finish(self, reason_code: int | None) -> None:
        if self._closing:
            return
        if reason_code is not None and self.version == _V5:
            self.send(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode(reason_code)))
        self._flush()
        self._closing = True
        self.channel = None
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()
            self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def abort(self) -> None:
        self._closing = True
        self.channel = None
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    # ends ---------------------------------------------------------------------------------------------------------

    def _protocol_failure(self, code: int, reason: str) -> None:
        if self.channel is not None:
            self.channel.disconnect_client(code, reason)

    def _idle(self) -> None:
        self.finish(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _common_name(transport: asyncio.BaseTransport) -> str | None:
    tls = transport.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject | ssl.SSLSocket):
        return None
    certificate = tls.getpeercert() or {}
    for part in certificate.get("subject", ()):
        for item in part:
            if item[0] == "commonName":
                return str(item[1])
    return None
