"""The connection to the broker: paho-mqtt in one thread, with its own reconnects. Other modules do not use paho.

`publish` hands a message to the broker or returns that it did not; the sender keeps a message that must not be lost
until the broker, or the controller, has confirmed it.
"""

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from device_agent.domain.connection_policy import MQTT5, PACKET_TOO_LARGE, ConnectionAttempt, ConnectionOutcome, explain
from device_agent.domain.packet_limit import packet_bytes
from device_agent.host.tls_socket import RememberingTlsSocket, failure_of
from device_agent.in_flight import InFlightMessages, OnPuback
from device_agent.settings import MqttSettings, read_key_passphrase
from schemas import topics
from schemas.base import MAX_PACKET_BYTES
from schemas.broker_address import BrokerAddress
from schemas.topics import UpChannel

SESSION_EXPIRY_SECONDS: Final = 3600  # how long the broker keeps commands for an absent agent
MAX_IN_FLIGHT: Final = 16  # own messages without a PUBACK
MAX_QUEUED: Final = 64  # own messages that paho holds in addition
_SELECT_SECONDS: Final = 0.5  # the longest time between two checks for a stop
_OFFLINE_SECONDS: Final = 2.0  # for the broker to confirm the last status
_UNSUPPORTED_CODES: Final = frozenset({1, 132})  # CONNACK of MQTT 3.1.1 and 5
_FIRST_FAILURE: Final = 128  # reason codes from here on are refusals
NO_SUBSCRIBERS: Final = 16
_RECONNECT_REQUESTED: Final = "reconnecting, as requested"

_log = logging.getLogger(__name__)


class Publish(Protocol):
    """Hands a message to the broker; see `MqttClient.publish`."""

    def __call__(self, channel: UpChannel, payload: bytes, on_puback: OnPuback | None = None, /) -> bool: ...


class MqttListener(Protocol):
    """Receives what happens on the connection, in its thread: methods must be quick and must not raise."""

    def on_connected(self) -> None:
        """The broker accepted, and the subscriptions are requested."""

    def on_disconnected(self) -> None:
        """The connection ended; publishing fails until the next `on_connected`."""

    def on_message(self, channel: topics.DownChannel, payload: bytes) -> None:
        """A message of the controller; it is acknowledged to the broker when this returns."""


@dataclass(frozen=True, slots=True)
class StatusPayloads:
    """The retained status: the will that the broker publishes, and the payloads at connect and disconnect."""

    will_payload: bytes
    online_payload: Callable[[], bytes]
    offline_payload: Callable[[], bytes]


class TlsCredentials(Protocol):
    """The client certificate of each connection; called from the thread of the connection."""

    def next_ssl_context(self) -> ssl.SSLContext:
        """Returns the context for the next attempt to connect."""

    def on_accepted(self) -> None:
        """The broker accepted that attempt."""


class _FixedCredentials:
    """The same certificate for every connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def next_ssl_context(self) -> ssl.SSLContext:
        return self._context

    def on_accepted(self) -> None:
        pass


class MqttClient:
    """One MQTT connection, kept up by its own thread from `start` to `stop`."""

    def __init__(
        self,
        device_id: str,
        settings: MqttSettings,
        password: str | None,
        status: StatusPayloads,
        listener: MqttListener,
        *,
        credentials: TlsCredentials | None = None,
    ) -> None:
        """Prepares the connection; `credentials` default to the configured certificate.

        Raises:
            ssl.SSLError, OSError: the certificate, key or authority cannot be loaded.
        """
        self._device_id = device_id
        self._settings = settings
        self._password = password
        self._status = status
        self._listener = listener
        self._servers = settings.broker_addresses
        if credentials is None and any(server.tls for server in self._servers):
            credentials = _FixedCredentials(tls_context(settings))
        self._credentials = credentials
        self._reconnect_requested = threading.Event()
        self._uses_tls = False  # in the present attempt
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._mutex = threading.Lock()
        self._client: mqtt.Client | None = None  # only while it is connected
        self._in_flight = InFlightMessages()
        self._was_too_large = False
        self._logged_too_large: set[tuple[topics.UpChannel, int]] = set()
        self._refusal = ""
        self._is_up = False
        self._was_up_at = 0.0
        self.refusals = 0  # CONNECTs that a broker refused

    def start(self) -> None:
        """Starts to connect; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Publishes the offline status, disconnects, and ends the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._settings.connect_timeout + _OFFLINE_SECONDS + 1)

    def reconnect(self) -> None:
        """Requests a new connection with the same session and without the offline status."""
        self._reconnect_requested.set()

    @property
    def is_connected(self) -> bool:
        """Whether publishing may succeed now."""
        return self._is_up

    def max_payload(self, channel: topics.UpChannel) -> int:
        """Returns the largest payload in bytes that the broker takes on a channel; 0: any."""
        most = self._in_flight.max_packet
        return max(1, most - packet_bytes(topics.up(self._device_id, channel), b"")) if most else 0

    def publish(self, channel: topics.UpChannel, payload: bytes, on_puback: OnPuback | None = None, /) -> bool:
        """Hands a QoS 1 message over; returns False without a connection, or with too many messages in flight.

        A message that is larger than the broker takes is not sent, which is logged once, and False is returned.
        `on_puback` is called from the thread of the connection; never, when the connection ends before the PUBACK.
        """
        with self._mutex:
            client = self._client
        if client is None:
            return False
        if self._is_too_large(channel, payload):
            return False
        topic = topics.up(self._device_id, channel)
        # Never call paho with our lock held: it holds its own while it calls us.
        info = client.publish(topic, payload, qos=1)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            return False
        self._in_flight.add(client, info.mid, packet_bytes(topic, payload), on_puback)
        return True

    def _is_too_large(self, channel: topics.UpChannel, payload: bytes) -> bool:
        most = self.max_payload(channel)
        if not most or len(payload) <= most:
            return False
        if (channel, most) not in self._logged_too_large:
            self._logged_too_large.add((channel, most))
            _log.error("on %s: %d of %d bytes; %s", channel, len(payload), most, explain(PACKET_TOO_LARGE, "too large"))
        return True

    def _run(self) -> None:
        attempt = ConnectionAttempt.first(self._settings.protocol, len(self._servers))
        while not self._stopping.is_set():
            server = self._servers[attempt.server]
            outcome, up_seconds, reason = self._run_connection(server, attempt)
            if self._stopping.is_set():
                return
            if outcome is ConnectionOutcome.LOST:
                attempt = attempt.accepted()
            attempt = attempt.next_attempt(outcome, up_seconds)
            # Jitter is no secret, so the ordinary generator serves.
            wait = attempt.wait_ceiling * random.random()  # noqa: S311 - see above
            if reason == _RECONNECT_REQUESTED:
                _log.info("%s: %s", server, reason)
                continue
            _log.warning("%s: %s (%s); next attempt in %.1f s", server, outcome, reason, wait)
            self._stopping.wait(wait)

    def _run_connection(
        self, server: BrokerAddress, attempt: ConnectionAttempt
    ) -> tuple[ConnectionOutcome, float, str]:
        """Runs one connection; returns how it ended, how many seconds it was up, and the reason."""
        client = self._make_client(server, attempt)
        self._reconnect_requested.clear()
        self._refusal, self._is_up, self._was_too_large = "", False, False
        reason, sock = "connection closed", None
        outcome: ConnectionOutcome | None = None
        try:
            client.connect(
                server.host, server.port, keepalive=int(self._settings.keepalive), **connect_options(attempt)
            )
            set_tcp_nodelay(client)
            sock = client.socket()
            reason = self._serve_socket(client)
        except ssl.SSLCertVerificationError as e:
            outcome, reason = ConnectionOutcome.UNREACHABLE, f"its certificate is not trusted: {e.verify_message}"
        except (OSError, ValueError) as e:
            outcome, reason = (None, str(e)) if self._is_up else (ConnectionOutcome.UNREACHABLE, str(e))
        except Exception as e:  # noqa: BLE001 - nothing that a broker sends may end the agent
            reason = f"cannot read what the broker sends: {type(e).__name__}: {e}"
        finally:
            was_up, up_seconds = self._on_connection_lost(client)
        if outcome is not None:
            return outcome, 0.0, reason
        if was_up:
            return ConnectionOutcome.LOST, up_seconds, self._refusal or reason
        if self._refusal == "unsupported":
            return ConnectionOutcome.UNSUPPORTED, 0.0, "it does not support this version of MQTT"
        if self._refusal:
            return ConnectionOutcome.REFUSED, 0.0, self._refusal
        if failure := failure_of(sock):  # the other protocol version would not help
            return ConnectionOutcome.UNREACHABLE, 0.0, failure
        return ConnectionOutcome.MUTE, 0.0, reason

    def _serve_socket(self, client: mqtt.Client) -> str:
        """Serves the socket until the connection ends; returns the reason."""
        connack_deadline = time.monotonic() + self._settings.connect_timeout
        while not self._stopping.is_set():
            code = client.loop(_SELECT_SECONDS)
            self._in_flight.dispatch()
            if code != mqtt.MQTT_ERR_SUCCESS:
                return mqtt.error_string(code)
            if self._refusal:
                return self._refusal
            if self._reconnect_requested.is_set() and self._is_up:
                client.disconnect()
                client.loop(0.1)
                return _RECONNECT_REQUESTED
            if not self._is_up and time.monotonic() > connack_deadline:
                return f"no answer to CONNECT within {self._settings.connect_timeout:g} s"
        self._publish_offline(client)
        return "stopped"

    def _publish_offline(self, client: mqtt.Client) -> None:
        if not self._is_up:
            return
        topic = topics.up(self._device_id, topics.UpChannel.STATUS)
        info = client.publish(topic, self._status.offline_payload(), qos=1, retain=True)
        deadline = time.monotonic() + _OFFLINE_SECONDS
        while not info.is_published() and time.monotonic() < deadline:
            if client.loop(0.1) != mqtt.MQTT_ERR_SUCCESS:
                return
        client.disconnect()
        client.loop(0.1)

    def _on_connection_lost(self, client: mqtt.Client) -> tuple[bool, float]:
        with self._mutex:
            self._client = None
        self._in_flight.lost(was_too_large=self._was_too_large, may_tell=client.protocol == MQTT5)
        was_up, self._is_up = self._is_up, False
        sock = client.socket()
        if sock is not None:
            sock.close()
        if was_up:
            self._listener.on_disconnected()
        return was_up, time.monotonic() - self._was_up_at

    def _make_client(self, server: BrokerAddress, attempt: ConnectionAttempt) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._device_id,
            protocol=MQTTProtocolVersion(attempt.level),
            reconnect_on_failure=False,
            clean_session=None if attempt.level == MQTT5 else False,
        )
        client.connect_timeout = self._settings.connect_timeout
        client.max_inflight_messages_set(MAX_IN_FLIGHT)
        client.max_queued_messages_set(MAX_QUEUED)
        # With this hook only the thread that runs paho's loop writes; two writers would interleave their packets.
        client.on_socket_register_write = lambda _client, _data, _sock: None
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        if server.tls:
            assert self._credentials is not None
            context = self._credentials.next_ssl_context()
            context.sslsocket_class = RememberingTlsSocket
            client.tls_set_context(context)
        self._uses_tls = server.tls
        if self._settings.username is not None:
            client.username_pw_set(self._settings.username, self._password)
        topic = topics.up(self._device_id, topics.UpChannel.STATUS)
        client.will_set(topic, self._status.will_payload, qos=1, retain=True)
        return client

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, props: Any) -> None:
        if reason.is_failure:
            unsupported = reason.value in _UNSUPPORTED_CODES or str(reason) == "Unsupported protocol version"
            self.refusals += 1
            self._refusal = "unsupported" if unsupported else f"refused: {explain(reason.value, str(reason))}"
            return
        is_v5 = client.protocol == MQTT5
        filters = [topics.down(self._device_id, channel) for channel in topics.DownChannel]
        client.subscribe(
            [(topic, SubscribeOptions(qos=1)) for topic in filters] if is_v5 else [(topic, 1) for topic in filters]
        )
        topic = topics.up(self._device_id, topics.UpChannel.STATUS)
        client.publish(topic, self._status.online_payload(), qos=1, retain=True)
        self._was_up_at = time.monotonic()
        self._in_flight.connected(client, int(getattr(props, "MaximumPacketSize", 0) or 0))
        with self._mutex:
            self._client = client
        self._is_up = True
        if self._credentials is not None and self._uses_tls:
            self._credentials.on_accepted()
        _log.info("connected to %s:%s by MQTT %s", client.host, client.port, "5" if is_v5 else "3.1.1")
        self._listener.on_connected()

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _props: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                # Without the subscription nothing is received; the broker may allow it at a later attempt.
                _log.error("the broker refused a subscription: %s; commands and receipts would not arrive", reason)
                self._refusal = f"a subscription was refused: {reason} ({reason.value})"

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _props: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._refusal = f"disconnected by the broker: {explain(reason.value, str(reason))}"
            self._was_too_large = reason.value == PACKET_TOO_LARGE

    def _on_publish(self, client: mqtt.Client, _data: Any, mid: int, reason: ReasonCode, _props: Any) -> None:
        if reason.value >= _FIRST_FAILURE:
            _log.warning("the broker refused a message: %s (%s)", reason, reason.value)
        # Paho holds its own lock here, so callbacks are called only after paho's loop has returned.
        is_delivered = reason.value < _FIRST_FAILURE and reason.value != NO_SUBSCRIBERS
        self._in_flight.on_puback(client, mid, delivered=is_delivered)

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            channel = next(c for c in topics.DownChannel if topics.down(self._device_id, c) == message.topic)
        except (StopIteration, UnicodeDecodeError):
            _log.warning("a message on a topic of another device was ignored")
            return
        self._listener.on_message(channel, bytes(message.payload))


def set_tcp_nodelay(client: mqtt.Client) -> None:
    """Disables Nagle's algorithm, which would delay small messages by up to 40 ms."""
    sock = client.socket()
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def connect_options(attempt: ConnectionAttempt) -> dict[str, Any]:
    """MQTT 5: the session outlives the connection, and packets larger than any message stay at the broker."""
    if attempt.level != MQTT5:
        return {}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.SessionExpiryInterval = SESSION_EXPIRY_SECONDS
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return {"clean_start": False, "properties": properties}


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """Returns a TLS 1.2+ context that verifies the server, with the client certificate where one is configured.

    Raises OSError where a file cannot be loaded (ssl.SSLError: it is not valid).
    """
    context = ssl.create_default_context(cafile=str(settings.ca) if settings.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate is not None:
        passphrase = read_key_passphrase(settings) or ""
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: passphrase)
    return context
