"""A paho client that records what a broker sends, for tests of the wire alone."""

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WAIT_SECONDS = 10.0  # how long an expected event may take
QUIET_SECONDS = 0.4  # how long nothing must come where nothing is expected


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and credentials of a listener."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Connack:
    """The answer to a CONNECT; `code` as on the wire of MQTT 5, or the 3.1.1 return code by its meaning."""

    code: int
    session_present: bool


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The end of a connection; `code` is None when the socket was closed without a packet."""

    code: int | None


@dataclass(frozen=True, slots=True)
class Received:
    """A received message."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int
    properties: Any = None

    @property
    def text(self) -> str:
        """The payload as text."""
        return self.payload.decode()


class Probe:
    """One connection, used once."""

    def __init__(
        self,
        endpoint: Endpoint,
        clientid: str,
        *,
        version: int = 5,
        clean: bool = True,
        expiry: int = 0,
        keepalive: int = 60,
        manual_ack: bool = False,
        receive_maximum: int | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.clientid = clientid
        self.version = version
        self._clean = clean
        self._keepalive = keepalive
        self._properties: Any = _properties(PacketTypes.CONNECT)
        if version == 5:
            self._properties.SessionExpiryInterval = expiry
            if receive_maximum is not None:
                self._properties.ReceiveMaximum = receive_maximum
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        extra: dict[str, Any] = {} if version == 5 else {"clean_session": clean}
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            clientid,
            protocol=protocol,
            reconnect_on_failure=False,
            manual_ack=manual_ack,
            **extra,
        )
        self._client.max_inflight_messages_set(1000)
        if endpoint.username is not None:
            self._client.username_pw_set(endpoint.username, endpoint.password)
        if endpoint.tls is not None:
            self._client.tls_set_context(endpoint.tls)
        self._lock = threading.Condition()
        self.connack: Connack | None = None
        self.connack_properties: Any = None
        self.disconnected: Disconnected | None = None
        self._acks: dict[int, list[int]] = {}
        self._messages: queue.Queue[Received] = queue.Queue()
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_unsubscribe = self._on_subscribe

    # callbacks, on paho's thread ----------------------------------------------------------------------------------

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._lock:
            self.connack = Connack(int(reason.value), bool(flags.session_present))
            self.connack_properties = properties
            self._lock.notify_all()

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        with self._lock:
            packet = flags.is_disconnect_packet_from_server
            self.disconnected = Disconnected(int(reason.value) if packet else None)
            self._lock.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self._messages.put(
            Received(
                message.topic,
                bytes(message.payload),
                message.qos,
                bool(message.retain),
                bool(message.dup),
                message.mid,
                getattr(message, "properties", None),
            )
        )

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        with self._lock:
            self._acks[mid] = [int(reason.value)]
            self._lock.notify_all()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, reasons: Any, _properties: Any) -> None:
        with self._lock:
            self._acks[mid] = [int(reason.value) for reason in reasons]
            self._lock.notify_all()

    def _until(self, ready: Callable[[], bool], what: str) -> None:
        with self._lock:
            if not self._lock.wait_for(ready, WAIT_SECONDS):
                raise AssertionError(f"{self.clientid}: no {what} within {WAIT_SECONDS} s")

    # actions ------------------------------------------------------------------------------------------------------

    def will(self, topic: str, payload: str, *, qos: int = 1, retain: bool = False, delay: int = 0) -> None:
        """Sets the last will; before `connect`."""
        properties = None
        if self.version == 5:
            properties = _properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = delay
        self._client.will_set(topic, payload, qos, retain, properties)

    def connect(self) -> Connack:
        """Connects, and waits for the CONNACK, whatever its code."""
        extra: dict[str, Any] = {}
        if self.version == 5:
            extra = {"clean_start": self._clean, "properties": self._properties}
        self._client.connect(self.endpoint.host, self.endpoint.port, self._keepalive, **extra)
        self._client.loop_start()
        self._until(lambda: self.connack is not None, "CONNACK")
        assert self.connack is not None
        return self.connack

    def enter(self) -> "Probe":
        """Connects; the CONNACK has to be a success."""
        connack = self.connect()
        assert connack.code == 0, f"{self.clientid}: CONNACK {connack.code}"
        return self

    def subscribe(self, *topics: str, qos: int = 1, options: SubscribeOptions | None = None) -> list[int]:
        """Subscribes; returns the codes of the SUBACK."""
        wanted: Any
        if self.version == 5:
            wanted = [(topic, options or SubscribeOptions(qos=qos)) for topic in topics]
        else:
            wanted = [(topic, qos) for topic in topics]
        _, mid = self._client.subscribe(wanted)
        assert mid is not None
        return self._ack(mid, "SUBACK")

    def unsubscribe(self, topic: str) -> list[int]:
        """Unsubscribes; returns the codes of the UNSUBACK (none in 3.1.1)."""
        _, mid = self._client.unsubscribe(topic)
        assert mid is not None
        return self._ack(mid, "UNSUBACK")

    def publish(
        self, topic: str, payload: str | bytes = b"x", *, qos: int = 1, retain: bool = False, **properties: Any
    ) -> int:
        """Publishes; returns the reason code of the PUBACK (0 for QoS 0, which has none)."""
        return self.published(self.start_publish(topic, payload, qos=qos, retain=retain, **properties))

    def start_publish(
        self, topic: str, payload: str | bytes = b"x", *, qos: int = 1, retain: bool = False, **properties: Any
    ) -> int:
        """Publishes without waiting; returns the packet id for `published`."""
        extra = None
        if properties:
            extra = _properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(extra, name, value)
        return self._client.publish(topic, payload, qos, retain, extra).mid

    def published(self, mid: int) -> int:
        """Waits for the PUBACK."""
        return self._ack(mid, "PUBACK")[0]

    def _ack(self, mid: int, what: str) -> list[int]:
        self._until(lambda: mid in self._acks, what)
        return self._acks.pop(mid)

    def acknowledge(self, message: Received) -> None:
        """Sends the PUBACK of a message, for a probe made with `manual_ack`."""
        self._client.ack(message.mid, message.qos)

    # received -----------------------------------------------------------------------------------------------------

    def message(self, timeout: float = WAIT_SECONDS) -> Received:
        """Waits for the next message."""
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"{self.clientid}: no message within {timeout} s") from None

    def messages(self, count: int) -> list[Received]:
        """Waits for the next messages."""
        return [self.message() for _ in range(count)]

    def drain(self, quiet: float = QUIET_SECONDS) -> list[Received]:
        """All messages until none has come for a while."""
        found: list[Received] = []
        while True:
            try:
                found.append(self._messages.get(timeout=quiet))
            except queue.Empty:
                return found

    def nothing(self, quiet: float = QUIET_SECONDS) -> None:
        """Asserts that no message comes for a while."""
        found = self.drain(quiet)
        assert not found, f"{self.clientid}: unexpected {found}"

    def ended(self) -> Disconnected:
        """Waits until the broker ends the connection."""
        self._until(lambda: self.disconnected is not None, "end of the connection")
        assert self.disconnected is not None
        return self.disconnected

    def alive(self, quiet: float = QUIET_SECONDS) -> bool:
        """Whether the connection is still open after a while."""
        with self._lock:
            return not self._lock.wait_for(lambda: self.disconnected is not None, quiet)

    # ends ---------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Sends DISCONNECT, and closes the connection."""
        self._client.disconnect()
        self._until(lambda: self.disconnected is not None, "end of the connection")
        self._client.loop_stop()

    def drop(self) -> None:
        """Closes the connection without DISCONNECT, as a device that loses its network."""
        sock = self._client.socket()
        if sock is not None:
            # the broker may have been faster
            with contextlib.suppress(OSError):
                cast("socket.socket", sock).shutdown(socket.SHUT_RDWR)
        self._until(lambda: self.disconnected is not None, "end of the connection")
        self._client.loop_stop()

    def close(self) -> None:
        """Frees socket and thread, in any state."""
        if self.disconnected is None:
            self._client.disconnect()
        self._client.loop_stop()


def close_all(probes: Iterable[Probe]) -> None:
    """Closes them in turn."""
    for probe in probes:
        probe.close()


def _properties(kind: int) -> Any:
    return Properties(kind)  # type: ignore[no-untyped-call]  # paho leaves this one untyped
