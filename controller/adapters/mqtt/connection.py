"""One connection, from the first lookup to its end: paho speaks MQTT, the loop owns the socket.

A connection is never reused: what a failed or abandoned attempt left behind in a client or in a thread is then
nobody's state.
"""

import asyncio
import contextlib
import threading
from concurrent.futures import Executor
from time import monotonic
from typing import Any, Final, TypeVar

from paho.mqtt import client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from controller.adapters.mqtt.buffered_socket import BufferedSocket, open_wire
from controller.adapters.mqtt.inbox import Inbox
from controller.adapters.mqtt.options import MqttOptions
from controller.adapters.mqtt.outbox import OutgoingMessage, PublishQueue
from controller.adapters.mqtt.packets import InboundPublish, as_publish, publish_packet
from controller.adapters.mqtt.paho_client import MqttVersion, PahoClient
from controller.adapters.mqtt.reason_codes import Disconnection, DisconnectKind, disconnected, network_words, refused
from controller.ports.log import Log
from schemas.broker_address import BrokerAddress

_T = TypeVar("_T")
MISC_SECONDS: Final = 1.0
# Packets handled in one turn of the loop before others get theirs; about 5 ms.
READ_BUDGET: Final = 500
CLOSE_SECONDS: Final = 2.0
MAX_UNSENT: Final = 4 * 1024 * 1024  # bytes that wait for a broker that is slow to read, before more is refused
_PINGREQ: Final = b"\xc0\x00"
_KEEPALIVE_TIMEOUT: Final = 141
_FIRST_FAILURE: Final = 128
_UNANSWERED: Final = "the server did not answer the CONNECT in time"


class ConnectionClosedError(Exception):
    """The connection could not be made, or is over; carries why."""

    def __init__(self, end: Disconnection) -> None:
        super().__init__(end.detail)
        self.end = end


class MqttConnection:
    """Connects, subscribes, reads, writes, and says in `ended` why it is over."""

    def __init__(
        self,
        server: BrokerAddress,
        version: MqttVersion,
        *,
        options: MqttOptions,
        inbox: Inbox,
        outbox: PublishQueue,
        log: Log,
    ) -> None:
        """Describe it; nothing happens before `open`. Made on the loop's thread."""
        self._server = server
        self._options = options
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
        """Connect and subscribe; tells whether the broker had kept the session.

        Raises:
            ConnectionClosedError: it did not come to that.
        """
        limit = self._options.connect_timeout_seconds
        try:
            try:
                # Twice: the socket and the TLS handshake have the limit each; the name lookup has none of its own.
                async with asyncio.timeout(2 * limit):
                    await self._loop.run_in_executor(executor, self._client.dial, self._server)
            except (OSError, ValueError) as error:  # TimeoutError is one of them
                raise ConnectionClosedError(Disconnection(DisconnectKind.UNREACHABLE, network_words(error))) from error
            self._attach()
            present = await self._answer(self._connack, Disconnection(DisconnectKind.SILENT, _UNANSWERED))
            self._client.ask_for(self._options.subscriptions)
            self._want_flush()
            await self._answer(
                self._suback,
                Disconnection(DisconnectKind.UNREACHABLE, "the broker did not answer the SUBSCRIBE in time"),
            )
        except BaseException:
            self.abandon()
            raise
        return present

    async def close(self) -> None:
        """Say goodbye (DISCONNECT 0: the session stays, no will) and wait for it to leave, a bounded time."""
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
        """Drop everything at once; also what a thread may still bring."""
        self._end(Disconnection(DisconnectKind.DROPPED, "closed by this side"))
        with self._lock:
            self._abandoned = True
            wire = self._wire
        if wire is not None:
            self._release()
            wire.close()

    def acknowledge(self, packets: bytes) -> None:
        """Send PUBACKs; they leave together at the end of this turn of the loop, and none before the CONNACK."""
        if packets and self._established and self._wire is not None:
            self._wire.send(packets)
            self._want_flush()

    def tell(self, topic: str, payload: bytes, expiry_seconds: int | None) -> bool:
        """Send at QoS 0 from the CONNACK on; False when that is not there yet, or the broker is slow to read."""
        wire = self._wire
        if not self._established or wire is None or wire.unsent > MAX_UNSENT:
            return False
        wire.send(publish_packet(topic, payload, expiry_seconds, five=self._five))
        self._want_flush()
        return True

    def resume(self) -> None:
        """Something was taken from the inbox: read on if reading had stopped."""
        if self._reading or not self._established or self.ended.done():
            return
        if self._wire is not None and self._inbox.roomy:
            self._reading = True
            self._loop.add_reader(self._wire.fileno(), self._on_readable)
            self._read_more()

    # -- connecting ------------------------------------------------------------------------------------------------

    def _open_wire(self) -> BufferedSocket:
        """Runs in a thread: nothing of the loop may be touched here."""
        wire = open_wire(self._server, self._options)
        with self._lock:
            if not self._abandoned:
                self._wire = wire
                return wire
        wire.close()
        raise ConnectionAbortedError("nobody waits for this connection any more")

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

    async def _answer(self, answer: asyncio.Future[_T], silence: Disconnection) -> _T:
        limit = self._options.connect_timeout_seconds
        either: set[asyncio.Future[Any]] = {answer, self.ended}
        await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            raise ConnectionClosedError(self.ended.result())
        if not answer.done():
            raise ConnectionClosedError(silence)
        return answer.result()

    # -- the loop's side -------------------------------------------------------------------------------------------

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
        except Exception as error:  # noqa: BLE001 - whatever cannot be read ends the connection, never the loop
            self._fail(f"the server sent something unreadable: {type(error).__name__}: {error}")
            return
        self._read_more()

    def _read_packet(self, wire: BufferedSocket, now: float) -> bool:
        """One packet, by us if it is a plain message, else by paho; whether there may be another."""
        found = wire.packet()
        if found is None:
            if not wire.starved:
                self._client.loop_read()  # paho finds out that it is over
            return False
        message = as_publish(*found, five=self._five) if self._established else None
        if message is None:  # also one at QoS 2, which is ours when its broker released it
            wire.grant(found[2])
            self._client.loop_read()
            if self.ended.done():
                return False
        else:
            wire.took(found[2])
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
            topic = ""  # nobody's topic: rejected above, and acknowledged, so that it does not come again for ever
        self._inbox.put(topic, message, now)

    def _read_more(self) -> None:
        """Look again in the next turn: what the wire has buffered the loop's reader does not know of."""
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
            self._fail(f"the connection broke: {network_words(error)}")
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
            # paho would take its unread PINGRESP for a dead server; the broker still has to hear from us.
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
            end = Disconnection(
                DisconnectKind.SILENT, f"{end.detail}, before the CONNECT was answered", end.reason_code
            )
        self.ended.set_result(end)
        self._detach()

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
        """Nothing of paho calls us any more."""
        client = self._client
        client.on_connect = client.on_disconnect = client.on_subscribe = client.on_message = client.on_publish = None
        client.on_socket_close = client.on_socket_register_write = None

    # -- paho's side -----------------------------------------------------------------------------------------------

    def _on_connect(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._end(refused(reason.value, reason.getName()))
            return
        self._established = True
        self.window = min(self._options.max_inflight, getattr(properties, "ReceiveMaximum", self._options.max_inflight))
        self._client.max_packet = getattr(properties, "MaximumPacketSize", None)
        self._inbox.begin(session_present=flags.session_present)
        if not self._connack.done():
            self._connack.set_result(flags.session_present)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        wire = self._wire
        if flags.is_disconnect_packet_from_server:
            self._end(disconnected(reason.value, reason.getName()))
        elif wire is not None and wire.trouble is not None:
            self._end(Disconnection(DisconnectKind.DROPPED, f"the connection broke: {network_words(wire.trouble)}"))
        elif wire is not None and wire.ended:
            self._end(Disconnection(DisconnectKind.DROPPED, "the server closed the connection"))
        elif reason.value == _KEEPALIVE_TIMEOUT:
            self._end(Disconnection(DisconnectKind.DROPPED, "the server did not answer a ping in time"))
        else:
            self._end(Disconnection(DisconnectKind.DROPPED, "the server broke the protocol"))

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _packet_id: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        for topic, reason in zip(self._options.subscriptions, reasons, strict=False):
            if reason.value >= _FIRST_FAILURE:
                words = f"the broker refused the subscription to {topic}: {reason.getName()} (reason {reason.value})"
                self._end(Disconnection(DisconnectKind.REFUSED, words, reason.value))
                return
        if not self._suback.done():
            self._suback.set_result(None)

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        raw = getattr(message, "_topic", b"")  # its property raises for what is no text
        arrived = InboundPublish(raw, bytes(message.payload), message.qos, message.retain, message.dup, message.mid)
        self._deliver(arrived, monotonic())

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        packet_id: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        code = reason.value
        if code >= _FIRST_FAILURE and code not in self._refusals_logged:
            self._refusals_logged.add(code)  # once for each connection: a missing right would fill the log
            self._log("mqtt_publish_refused", {"reason_code": code, "reason": reason.getName()})
        self._outbox.settled(packet_id, code, reason.getName(), self._loop.time())

    def send(self, letter: OutgoingMessage) -> int | None:
        """Publish at QoS 1; gives the packet id, or None when paho takes nothing now.

        Raises:
            ValueError: it can never be sent.
        """
        expiry = None if letter.deadline is None else letter.deadline - self._loop.time()
        try:
            return self._client.post(letter.topic, letter.payload, expiry)
        except ValueError as error:
            self._log("mqtt_publish_impossible", {"topic": letter.topic, "reason": str(error)})
            raise
