"""One MQTT connection: paho encodes and decodes, the event loop owns the socket.

A connection is never reused, so state that a failed attempt left in a client or thread affects no later connection.
"""

import asyncio
import contextlib
import threading
from concurrent.futures import Executor
from time import monotonic
from typing import Any, Final, TypeVar

from paho.mqtt import client as paho
from paho.mqtt.reasoncodes import ReasonCode

from controller.adapters.mqtt.buffered_socket import BufferedSocket, HeldTlsContext, open_wire
from controller.adapters.mqtt.inbox import Inbox
from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.mqtt.outbox import OutgoingMessage, PublishQueue
from controller.adapters.mqtt.packets import InboundPublish, as_publish, publish_packet
from controller.adapters.mqtt.paho_client import MqttVersion, PahoClient
from controller.adapters.mqtt.reason_codes import (
    Disconnection,
    DisconnectKind,
    connack_reason,
    describe_network_error,
    disconnect_reason,
)
from controller.ports.log import Log
from schemas.broker_address import BrokerAddress

_T = TypeVar("_T")
MISC_SECONDS: Final = 1.0
READ_BUDGET: Final = 500  # packets per iteration of the loop; about 5 ms
CLOSE_SECONDS: Final = 2.0
MAX_UNSENT: Final = 4 * 1024 * 1024  # bytes buffered for a broker that reads slowly, before `publish_nowait` refuses
_PINGREQ: Final = b"\xc0\x00"
_KEEPALIVE_TIMEOUT: Final = 141
_FIRST_FAILURE: Final = 128
_NO_CONNACK: Final = "the server did not answer the CONNECT in time"
_NO_SUBACK: Final = "the broker did not answer the SUBSCRIBE in time"


class ConnectionClosedError(Exception):
    """The connection failed or ended; `end` says why."""

    def __init__(self, end: Disconnection) -> None:
        super().__init__(end.detail)
        self.end = end


class MqttConnection:
    """Connects, subscribes, reads and writes; `ended` is resolved with the reason when it is over."""

    def __init__(
        self,
        server: BrokerAddress,
        version: MqttVersion,
        *,
        options: MqttOptions,
        tls: HeldTlsContext,
        inbox: Inbox,
        outbox: PublishQueue,
        log: Log,
    ) -> None:
        self._server = server
        self._options = options
        self._tls = tls
        self._inbox = inbox
        self._outbox = outbox
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._abandoned = False
        self._wire: BufferedSocket | None = None
        self._client = PahoClient(self._open_wire, options, version)
        self._five = version == "5"
        self.ended: asyncio.Future[Disconnection] = self._loop.create_future()
        self.window = options.max_inflight
        self._connack: asyncio.Future[bool] = self._loop.create_future()
        self._suback: asyncio.Future[None] = self._loop.create_future()
        self._established = False
        self._reading = False
        self._more_scheduled = False
        self._flushing = False
        self._blocked = False
        self._drained = asyncio.Event()
        self._drained.set()
        self._pinged_at = self._loop.time()
        self._misc: asyncio.TimerHandle | None = None
        self._refusals_logged: set[int] = set()

    async def open(self, executor: Executor) -> bool:
        """Connects and subscribes; returns whether the broker had kept the session.

        Raises:
            ConnectionClosedError: the broker did not accept, or was silent for too long.
        """
        limit = self._options.connect_timeout_seconds
        try:
            try:
                # The socket and the TLS handshake have this limit each; the name lookup has none of its own.
                async with asyncio.timeout(2 * limit):
                    await self._loop.run_in_executor(executor, self._client.dial, self._server)
            except (OSError, ValueError) as error:  # TimeoutError is one of them
                raise ConnectionClosedError(
                    Disconnection(DisconnectKind.UNREACHABLE, describe_network_error(error))
                ) from error
            self._attach()
            present = await self._wait_for(self._connack, Disconnection(DisconnectKind.SILENT, _NO_CONNACK))
            self._client.subscribe_all(self._options.subscriptions)
            self._want_flush()
            await self._wait_for(self._suback, Disconnection(DisconnectKind.UNREACHABLE, _NO_SUBACK))
        except BaseException:
            self.abandon()
            raise
        return present

    async def close(self) -> None:
        """Sends DISCONNECT 0 (the session stays, no will) and waits at most `CLOSE_SECONDS` for it to leave."""
        if not self.ended.done():
            self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._drained.wait()
            if not self.ended.done() and not self._blocked:
                self._client.disconnect()
                self._flush()
        self.abandon()

    def abandon(self) -> None:
        """Closes at once, also a socket that a thread may still open."""
        self._end(Disconnection(DisconnectKind.DROPPED, "closed by this side"))
        with self._lock:
            self._abandoned = True
            wire = self._wire
        if wire is not None:
            self._release()
            wire.close()

    def acknowledge(self, packets: bytes) -> None:
        """Sends PUBACKs, together at the end of this iteration of the loop; none before the CONNACK."""
        if packets and self._established and self._wire is not None:
            self._wire.send(packets)
            self._want_flush()

    def publish_nowait(self, topic: str, payload: bytes, expiry_seconds: int | None) -> bool:
        """Sends at QoS 0; False before the CONNACK, or when the broker reads too slowly."""
        wire = self._wire
        if not self._established or wire is None or wire.unsent > MAX_UNSENT:
            return False
        wire.send(publish_packet(topic, payload, expiry_seconds, five=self._five))
        self._want_flush()
        return True

    def resume(self) -> None:
        """Resumes reading that stopped because the inbox was full."""
        if self._reading or not self._established or self.ended.done():
            return
        if self._wire is not None and self._inbox.has_room:
            self._reading = True
            self._loop.add_reader(self._wire.fileno(), self._on_readable)
            self._read_more()

    def _open_wire(self) -> BufferedSocket:
        """Runs in a thread: uses nothing of the loop."""
        wire = open_wire(self._server, self._options, self._tls)
        with self._lock:
            if not self._abandoned:
                self._wire = wire
                return wire
        wire.close()
        raise ConnectionAbortedError("the connection was abandoned")

    def _attach(self) -> None:
        assert self._wire is not None
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_close = lambda _client, _userdata, _sock: self._detach()
        client.on_socket_register_write = lambda _client, _userdata, _sock: self._want_flush()
        self._reading = True
        self._loop.add_reader(self._wire.fileno(), self._on_readable)
        self._misc = self._loop.call_later(MISC_SECONDS, self._on_second)
        self._want_flush()
        self._read_more()

    async def _wait_for(self, answer: asyncio.Future[_T], timed_out: Disconnection) -> _T:
        limit = self._options.connect_timeout_seconds
        either: set[asyncio.Future[Any]] = {answer, self.ended}
        await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            raise ConnectionClosedError(self.ended.result())
        if not answer.done():
            raise ConnectionClosedError(timed_out)
        return answer.result()

    # Called by the loop.

    def _on_readable(self) -> None:
        self._more_scheduled = False
        wire = self._wire
        if wire is None or not self._reading or self.ended.done():
            return
        wire.starved = False
        now = monotonic()
        try:
            for _ in range(READ_BUDGET):
                if not self._read_packet(wire, now):
                    return
        except Exception as error:  # noqa: BLE001 - an unreadable packet ends the connection, not the loop
            self._fail(f"the server sent something unreadable: {type(error).__name__}: {error}")
            return
        self._read_more()

    def _read_packet(self, wire: BufferedSocket, now: float) -> bool:
        """Handles one packet: a plain PUBLISH here, any other by paho. Returns whether there may be another."""
        found = wire.packet()
        if found is None:
            if not wire.starved:
                self._client.loop_read()  # paho reports the end of the connection
            return False
        message = as_publish(*found, five=self._five) if self._established else None
        if message is None:  # also a PUBLISH at QoS 2, which is delivered when the broker released it
            wire.allow(found[2])
            self._client.loop_read()
            if self.ended.done():
                return False
        else:
            wire.consume(found[2])
            self._deliver(message, now)
        if not self._inbox.full:
            return True
        self._reading = False
        self._loop.remove_reader(wire.fileno())
        return False

    def _deliver(self, message: InboundPublish, now: float) -> None:
        try:
            topic = message.topic.decode()
        except UnicodeDecodeError:
            topic = ""  # ingest rejects and acknowledges it, so that the broker does not deliver it again
        self._inbox.put(topic, message, now)

    def _read_more(self) -> None:
        """Reads in the next iteration: the loop's reader does not see what the socket has buffered already."""
        if not self._more_scheduled:
            self._more_scheduled = True
            self._loop.call_soon(self._on_readable)

    def _want_flush(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        wire = self._wire
        if wire is None or self.ended.done():
            return
        try:
            if self._client.want_write():
                self._client.loop_write()
                if self.ended.done():  # it was the DISCONNECT
                    return
            blocked = not wire.flush()
        except OSError as error:
            self._fail(f"the connection broke: {describe_network_error(error)}")
            return
        if blocked == self._blocked:
            return
        self._blocked = blocked
        if blocked:
            self._drained.clear()
            self._loop.add_writer(wire.fileno(), self._flush)
        else:
            self._drained.set()
            self._loop.remove_writer(wire.fileno())

    def _on_second(self) -> None:
        wire = self._wire
        if wire is None or self.ended.done():
            return
        self._misc = self._loop.call_later(MISC_SECONDS, self._on_second)
        if self._reading and wire.starved:
            self._client.loop_misc()
        elif self._loop.time() - self._pinged_at >= self._options.keepalive_seconds / 2:
            # With an unread PINGRESP, paho would consider the server dead; the broker still needs a PINGREQ.
            self._pinged_at = self._loop.time()
            wire.send(_PINGREQ)
            self._want_flush()

    def _fail(self, detail: str) -> None:
        self._end(Disconnection(DisconnectKind.DROPPED, detail))
        self.abandon()

    def _end(self, end: Disconnection) -> None:
        if self.ended.done():
            return
        if not self._established and end.kind is DisconnectKind.DROPPED:
            detail = f"{end.detail}, before the CONNECT was answered"
            end = Disconnection(self._kind_before_connack(), detail, end.reason_code)
        self.ended.set_result(end)
        self._detach()

    def _kind_before_connack(self) -> DisconnectKind:
        """An abrupt end over TLS is TLS's, as of a refused certificate: another protocol version would not help."""
        broke = self._wire is not None and self._wire.trouble is not None
        return DisconnectKind.UNREACHABLE if self._server.tls and broke else DisconnectKind.SILENT

    def _detach(self) -> None:
        if self._misc is not None:
            self._misc.cancel()
        fd = -1 if self._wire is None else self._wire.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        self._reading = False
        self._drained.set()

    def _release(self) -> None:
        """Removes every callback from paho."""
        client = self._client
        client.on_connect = client.on_disconnect = client.on_subscribe = client.on_message = client.on_publish = None
        client.on_socket_close = client.on_socket_register_write = None

    # Called by paho.

    def _on_connect(
        self, _client: object, _userdata: object, flags: paho.ConnectFlags, reason: ReasonCode, properties: object
    ) -> None:
        if reason.is_failure:
            self._end(connack_reason(reason.value, reason.getName()))
            return
        self._established = True
        self.window = min(self._options.max_inflight, getattr(properties, "ReceiveMaximum", self._options.max_inflight))
        self._client.max_packet = getattr(properties, "MaximumPacketSize", None)
        self._inbox.begin(session_present=flags.session_present)
        if not self._connack.done():
            self._connack.set_result(flags.session_present)

    def _on_disconnect(
        self, _client: object, _userdata: object, flags: paho.DisconnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        wire = self._wire
        if flags.is_disconnect_packet_from_server:
            self._end(disconnect_reason(reason.value, reason.getName()))
        elif wire is not None and wire.trouble is not None:
            self._end(
                Disconnection(DisconnectKind.DROPPED, f"the connection broke: {describe_network_error(wire.trouble)}")
            )
        elif wire is not None and wire.ended:
            self._end(Disconnection(DisconnectKind.DROPPED, "the server closed the connection"))
        elif reason.value == _KEEPALIVE_TIMEOUT:
            self._end(Disconnection(DisconnectKind.DROPPED, "the server did not answer a ping in time"))
        else:
            self._end(Disconnection(DisconnectKind.DROPPED, "the server broke the protocol"))

    def _on_subscribe(
        self, _client: object, _userdata: object, _packet_id: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        for topic, reason in zip(self._options.subscriptions, reasons, strict=False):
            if reason.value >= _FIRST_FAILURE:
                detail = f"the broker refused the subscription to {topic}: {reason.getName()} (reason {reason.value})"
                self._end(Disconnection(DisconnectKind.REFUSED, detail, reason.value))
                return
        if not self._suback.done():
            self._suback.set_result(None)

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        raw = getattr(message, "_topic", b"")  # the property raises for invalid UTF-8
        arrived = InboundPublish(raw, bytes(message.payload), message.qos, message.retain, message.dup, message.mid)
        self._deliver(arrived, monotonic())

    def _on_publish(
        self, _client: object, _userdata: object, packet_id: int, reason: ReasonCode, _properties: object
    ) -> None:
        code = reason.value
        if code >= _FIRST_FAILURE and code not in self._refusals_logged:
            self._refusals_logged.add(code)  # once per connection: a missing permission would fill the log
            self._log("mqtt_publish_refused", {"reason_code": code, "reason": reason.getName()})
        self._outbox.on_acknowledged(packet_id, code, reason.getName(), self._loop.time())

    def send(self, message: OutgoingMessage) -> int | None:
        """Publishes at QoS 1; returns the packet id, or None when paho accepts nothing now.

        Raises:
            ValueError: the message can never be sent.
        """
        expiry = None if message.deadline is None else message.deadline - self._loop.time()
        try:
            return self._client.publish_packet(message.topic, message.payload, expiry)
        except ValueError as error:
            self._log("mqtt_publish_impossible", {"topic": message.topic, "reason": str(error)})
            raise
