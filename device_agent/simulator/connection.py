"""The MQTT connection of a simulated device; it has no thread of its own, the fleet's selector serves it."""

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from device_agent.domain.connection_policy import MQTT5, ConnectionAttempt, ConnectionOutcome
from device_agent.host.clock import Clock
from device_agent.mqtt_client import set_tcp_nodelay
from device_agent.settings import MqttProtocol
from device_agent.simulator.device import SimulatedDevice
from device_agent.simulator.observations import Observation, ObservationKind, Observer
from schemas.backoff import Backoff
from schemas.base import MAX_PACKET_BYTES
from schemas.broker_address import BrokerAddress
from schemas.topics import UpChannel, up

SESSION_EXPIRY_SECONDS: Final = 3600
# Shorter than a real agent's, so that a rejected device soon retries in a demonstration.
DEFAULT_BACKOFF: Final = Backoff(first=0.5, cap=5.0)
_MAX_IN_FLIGHT: Final = 32
_MAX_QUEUED: Final = 1000
_UNSUPPORTED_CODES: Final = frozenset({1, 132})  # CONNACK of MQTT 3.1.1 and 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """Addresses and credentials of the broker; times in seconds."""

    servers: tuple[BrokerAddress, ...]
    protocol: MqttProtocol = "auto"
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = None
    keepalive: int = 30
    connect_timeout: float = 5.0
    backoff: Backoff = DEFAULT_BACKOFF


class FleetLoop(Protocol):
    """The event loop that serves a connection; all methods but `mark_writable` are called in its thread."""

    clock: Clock

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` after `seconds`."""
        ...

    def start_dialling(self, connection: "SimulatedConnection") -> None:
        """Calls `connection.dial` in a thread that may block, then `dialled` in the loop."""
        ...

    def mark_writable(self, connection: "SimulatedConnection") -> None:
        """Checks soon whether the connection has data to write."""
        ...

    def forget(self, connection: "SimulatedConnection", sock: Any) -> None:
        """Unregisters a socket that is about to be closed."""
        ...

    def random(self) -> float:
        """Returns a uniform random number in [0, 1)."""
        ...


class SimulatedConnection:
    """Connects a device to the broker, reconnects, and carries its messages; it is the `DeviceEnvironment`."""

    def __init__(
        self, device_id: str, access: BrokerAccess, first_server: int, fleet: FleetLoop, observer: Observer
    ) -> None:
        self.device_id = device_id
        self.clock = fleet.clock
        self.device: SimulatedDevice | None = None  # set before the first dial: device and connection need each other
        self._access = access
        self._fleet = fleet
        self._observer = observer
        first = ConnectionAttempt.first(access.protocol, len(access.servers))
        self._attempt = ConnectionAttempt(
            first.level, first.servers, first_server % first.servers, negotiates_version=first.negotiates_version
        )
        self._client: mqtt.Client | None = None
        self._notes: dict[int, tuple[str, Mapping[str, Any]]] = {}
        self._subscriptions: dict[int, list[str]] = {}  # requested filters by packet id
        self._connected_at: float | None = None
        self._outcome = ConnectionOutcome.MUTE
        self._should_connect = True
        self._is_dialling = False

    # DeviceEnvironment

    def send(self, topic: str, payload: bytes, note: Mapping[str, Any], *, retain: bool = False) -> bool:
        client = self._client
        if client is None or self._connected_at is None:
            return False
        info = client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            return False
        self._notes[info.mid] = (topic, note)
        return True

    def observe(self, kind: ObservationKind, data: Mapping[str, Any]) -> None:
        clock = self.clock
        self._observer(Observation(self.device_id, kind, clock.monotonic(), clock.now().timestamp(), data))

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._fleet.call_later(seconds, callback)

    # Called by the fleet

    @property
    def is_connected(self) -> bool:
        """Whether the broker accepted the connection and it is still open."""
        return self._connected_at is not None

    @property
    def client(self) -> mqtt.Client | None:
        """The paho client of the current connection or connection attempt."""
        return self._client

    def connect(self) -> None:
        """Starts connecting, unless connected, connecting, or disconnected on purpose."""
        if self._should_connect and self._client is None and not self._is_dialling:
            self._is_dialling = True
            self._fleet.start_dialling(self)

    def dial(self) -> tuple[mqtt.Client | None, str]:
        """Opens the socket and sends CONNECT; blocks. Returns the client, or None and the reason."""
        server = self._access.servers[self._attempt.server]
        try:
            client = self._make_client(server)
            extra: dict[str, Any] = {}
            if self._attempt.level == MQTT5:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
                properties.SessionExpiryInterval = SESSION_EXPIRY_SECONDS
                properties.MaximumPacketSize = MAX_PACKET_BYTES
                extra = {"clean_start": False, "properties": properties}
            client.connect(server.host, server.port, keepalive=self._access.keepalive, **extra)
            set_tcp_nodelay(client)
        except (OSError, ValueError) as e:
            return None, str(e)
        return client, ""

    def dialled(self, client: mqtt.Client | None, reason: str) -> None:
        """Processes the result of `dial`, in the loop's thread."""
        self._is_dialling = False
        if client is None:
            self.observe(ObservationKind.UNREACHABLE, {"reason": reason})
            self._schedule_reconnect(ConnectionOutcome.UNREACHABLE, 0.0)
            return
        self._client, self._outcome = client, ConnectionOutcome.MUTE
        if not self._should_connect:
            self.disconnect()
            return
        self._fleet.mark_writable(self)
        self.call_later(self._access.connect_timeout, lambda: self._on_connect_timeout(client))

    def served(self, code: int, reason: str = "") -> None:
        """Processes paho's return `code` after the loop served the socket; cleans up when the connection ended."""
        client = self._client
        if client is None or (code == mqtt.MQTT_ERR_SUCCESS and client.socket() is not None):
            return
        self._end(reason or mqtt.error_string(MQTTErrorCode(code)))

    def drop_connection(self) -> None:
        """Closes the socket without DISCONNECT; reconnects after the usual back-off."""
        self._close_socket()
        self.served(mqtt.MQTT_ERR_CONN_LOST, "cut")

    def drop_and_stay_offline(self) -> None:
        """Closes the socket without DISCONNECT and does not reconnect."""
        self._should_connect = False
        self.drop_connection()

    def reconnect(self) -> None:
        """Connects again immediately."""
        self._should_connect = True
        self.connect()

    def disconnect(self) -> None:
        """Publishes offline, sends DISCONNECT and does not reconnect."""
        self._should_connect = False
        client = self._client
        if client is None:
            return
        if self._connected_at is not None and self.device is not None:
            self.send(up(self.device_id, UpChannel.STATUS), self.device.status(is_online=False), {}, retain=True)
        client.disconnect()
        self._fleet.mark_writable(self)

    def _on_connect_timeout(self, client: mqtt.Client) -> None:
        if self._client is client and self._connected_at is None:
            self._close_socket()
            self.served(mqtt.MQTT_ERR_CONN_LOST, "no answer to CONNECT")

    def _close_socket(self) -> None:
        client = self._client
        sock = client.socket() if client is not None else None
        if sock is not None:
            self._fleet.forget(self, sock)
            sock.close()

    def _end(self, reason: str) -> None:
        # Messages that paho still queues are dropped with its client; the device keeps unacknowledged reports.
        self._client = None
        self._notes.clear()
        self._subscriptions.clear()
        since, self._connected_at = self._connected_at, None
        if since is not None:
            if self.device is not None:
                self.device.on_disconnected()
            if self._outcome is not ConnectionOutcome.REFUSED:
                self.observe(ObservationKind.DISCONNECTED, {"code": None, "reason": reason})
            self._schedule_reconnect(ConnectionOutcome.LOST, self.clock.monotonic() - since)
            return
        if self._outcome is ConnectionOutcome.MUTE:
            self.observe(ObservationKind.UNREACHABLE, {"reason": reason})
        self._schedule_reconnect(self._outcome, 0.0)

    def _schedule_reconnect(self, outcome: ConnectionOutcome, connected_seconds: float) -> None:
        self._attempt = self._attempt.next_attempt(outcome, connected_seconds, self._access.backoff)
        if self._should_connect:
            self.call_later(self._attempt.wait_ceiling * self._fleet.random(), self.connect)

    def _make_client(self, server: BrokerAddress) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.device_id,
            protocol=MQTTProtocolVersion(self._attempt.level),
            clean_session=None if self._attempt.level == MQTT5 else False,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._access.connect_timeout
        client.max_inflight_messages_set(_MAX_IN_FLIGHT)
        client.max_queued_messages_set(_MAX_QUEUED)
        client.on_socket_register_write = lambda _client, _data, _sock: self._fleet.mark_writable(self)
        client.on_socket_close = lambda _client, _data, sock: self._fleet.forget(self, sock)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        if server.tls:
            client.tls_set_context(self._access.tls or ssl.create_default_context())
        if self._access.username is not None:
            client.username_pw_set(self._access.username.replace("{id}", self.device_id), self._access.password)
        if self.device is not None:
            will = self.device.status(is_online=False, is_will=True)
            client.will_set(up(self.device_id, UpChannel.STATUS), will, qos=1, retain=True)
        return client

    def _on_connect(self, client: mqtt.Client, _data: Any, flags: Any, reason: ReasonCode, _props: Any) -> None:
        if reason.is_failure:
            is_old = reason.value in _UNSUPPORTED_CODES or str(reason) == "Unsupported protocol version"
            self._outcome = ConnectionOutcome.UNSUPPORTED if is_old else ConnectionOutcome.REFUSED
            self.observe(ObservationKind.REFUSED, {"code": reason.value, "reason": str(reason)})
            return
        self._client = client
        self._attempt = self._attempt.accepted()
        self._connected_at = self.clock.monotonic()
        is_five = self._attempt.level == MQTT5
        data = {"mqtt": "5" if is_five else "3.1.1", "session_present": bool(flags.session_present)}
        self.observe(ObservationKind.CONNECTED, {**data, "server": str(self._access.servers[self._attempt.server])})
        assert self.device is not None
        filters = self.device.filters
        requested = [(topic, SubscribeOptions(qos=1)) for topic in filters] if is_five else [(t, 1) for t in filters]
        _, mid = client.subscribe(requested)
        if mid is not None:
            self._subscriptions[mid] = filters
        self.device.on_connected()

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _props: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self.observe(ObservationKind.DISCONNECTED, {"code": reason.value, "reason": str(reason)})
            self._outcome = ConnectionOutcome.REFUSED

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _props: Any) -> None:
        topic, note = self._notes.pop(mid, ("", {}))
        self.observe(ObservationKind.PUBACK, {"topic": topic, "code": reason.value, **note})

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, reasons: list[ReasonCode], _props: Any) -> None:
        for topic, reason in zip(self._subscriptions.pop(mid, []), reasons, strict=False):
            self.observe(ObservationKind.SUBACK, {"topic": topic, "code": reason.value})

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        if self.device is not None:
            self.device.on_message(topic, bytes(message.payload))
