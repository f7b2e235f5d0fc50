"""The connection to the broker: paho-mqtt in one thread, with our own reconnecting; the rest of the agent sees no paho.

It promises little, so that little can be lost: `publish` hands a message to the broker or says that it did not; what
must not be lost is kept by whoever sends it until the broker, or the controller, has confirmed it.
"""

import logging
import random
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from device_agent.domain.connection_policy import MQTT5, ConnectionAttempt, ConnectionOutcome
from device_agent.settings import MqttSettings, read_secret
from schemas import topics
from schemas.broker_address import BrokerAddress
from schemas.topics import UpChannel


class Publish(Protocol):
    """Hands a message to the broker; see `MqttClient.publish`."""

    def __call__(self, channel: UpChannel, payload: bytes, confirmed: Callable[[bool], None] | None = None) -> bool:
        """False when nothing was sent."""
        ...


SESSION_EXPIRY_SECONDS: Final = 3600  # how long the broker keeps commands for an agent that is away
MAX_IN_FLIGHT: Final = 16  # messages of ours without their PUBACK
MAX_QUEUED: Final = 64  # messages of ours that paho holds beyond those
_SELECT_SECONDS: Final = 0.5  # the longest the link sleeps without looking whether it shall stop
_GOODBYE_SECONDS: Final = 2.0  # for the broker to confirm the last status
_UNSUPPORTED_CODES: Final = frozenset({1, 132})  # CONNACK of MQTT 3.1.1 and 5
_FIRST_FAILURE: Final = 128  # reason codes from here on are refusals
NO_SUBSCRIBERS: Final = 16

_log = logging.getLogger(__name__)


class MqttListener(Protocol):
    """What the link tells; called from its own thread, so it must be quick and must not raise."""

    def connected(self) -> None:
        """The broker accepted and the subscriptions are made."""

    def disconnected(self) -> None:
        """The connection ended; publishing does nothing until it is back."""

    def received(self, channel: topics.DownChannel, payload: bytes) -> None:
        """A message of the controller's; it is acknowledged to the broker when this returns."""


@dataclass(frozen=True, slots=True)
class StatusPayloads:
    """The two status payloads: what the broker says for us when we vanish, and what we say when we come."""

    will: bytes
    online: Callable[[], bytes]
    offline: Callable[[], bytes]


OnConfirmed = Callable[[bool], None]
_RENEWING: Final = "connecting anew, as asked"


class TlsCredentials(Protocol):
    """What the link shows of itself; asked from its own thread."""

    def context(self) -> ssl.SSLContext:
        """For the next attempt to connect."""

    def worked(self) -> None:
        """The broker accepted that attempt."""


class _Settled:
    """One pair for ever."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def context(self) -> ssl.SSLContext:
        return self._context

    def worked(self) -> None:
        """Nothing follows."""


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
        """Prepare it; without `credentials` it shows the configured certificate for ever.

        Raises:
            ssl.SSLError, OSError: the certificate, key or authority cannot be loaded.
        """
        self._device_id = device_id
        self._settings = settings
        self._password = password
        self._status = status
        self._listener = listener
        self._servers = settings.addresses
        if credentials is None and any(server.tls for server in self._servers):
            credentials = _Settled(tls_context(settings))
        self._credentials = credentials
        self._again = threading.Event()
        self._has_shown = False  # whether the present attempt is by TLS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._mutex = threading.Lock()
        self._client: mqtt.Client | None = None  # only while it is connected
        self._waiting: dict[tuple[mqtt.Client, int], OnConfirmed] = {}
        self._answers: deque[tuple[mqtt.Client, int, bool]] = deque()  # the broker's words, not passed on yet
        self._unclaimed: set[int] = set()  # answered messages nobody waited for a moment ago
        self._refusal = ""
        self._is_up = False
        self._was_up_at = 0.0
        self.refusals = 0  # CONNECTs that a broker said no to

    def start(self) -> None:
        """Begin connecting; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Say offline, disconnect, end the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._settings.connect_timeout + _GOODBYE_SECONDS + 1)

    def reconnect(self) -> None:
        """Connect anew as soon as the link's thread looks, with the same session, and without a word of going."""
        self._again.set()

    @property
    def is_connected(self) -> bool:
        """Whether publishing has a chance now."""
        return self._is_up

    def publish(self, channel: topics.UpChannel, payload: bytes, confirmed: OnConfirmed | None = None) -> bool:
        """Hand a QoS 1 message over; False when there is no connection or too much is under way, and nothing was done.

        `confirmed` is called from the link's thread with whether the broker took the message and had somebody to give
        it to; never, when the connection ends before the broker's word.
        """
        with self._mutex:
            client = self._client
        if client is None:
            return False
        # Never call paho with our lock held: it holds its own while it calls us.
        info = client.publish(topics.up(self._device_id, channel), payload, qos=1)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            return False
        if confirmed is not None:
            with self._mutex:
                self._waiting[client, info.mid] = confirmed
        return True

    def _run(self) -> None:
        attempt = ConnectionAttempt.first(self._settings.protocol, len(self._servers))
        while not self._stopping.is_set():
            server = self._servers[attempt.server]
            outcome, up_seconds, why = self._live(server, attempt)
            if self._stopping.is_set():
                return
            if outcome is ConnectionOutcome.LOST:
                attempt = attempt.accepted()
            attempt = attempt.next_attempt(outcome, up_seconds)
            # Jitter is no secret, so the ordinary generator serves.
            wait = attempt.wait_ceiling * random.random()  # noqa: S311 - see above
            if why == _RENEWING:
                _log.info("%s: %s", server, why)
                continue
            _log.warning("%s: %s (%s); next attempt in %.1f s", server, outcome, why, wait)
            self._stopping.wait(wait)

    def _live(self, server: BrokerAddress, attempt: ConnectionAttempt) -> tuple[ConnectionOutcome, float, str]:
        """One connection from its first to its last byte; how it ended, seconds it was up, and why it ended."""
        client = self._make_client(server, attempt)
        self._again.clear()
        self._refusal, self._is_up = "", False
        why = "connection closed"
        outcome: ConnectionOutcome | None = None
        try:
            client.connect(server.host, server.port, keepalive=int(self._settings.keepalive), **_clean_start(attempt))
            send_at_once(client)
            why = self._loop(client)
        except ssl.SSLCertVerificationError as e:
            outcome, why = ConnectionOutcome.UNREACHABLE, f"its certificate is not trusted: {e.verify_message}"
        except (OSError, ValueError) as e:
            outcome, why = (None, str(e)) if self._is_up else (ConnectionOutcome.UNREACHABLE, str(e))
        except Exception as e:  # noqa: BLE001 - whatever a broker sends must not end the agent
            why = f"cannot read what the broker sends: {type(e).__name__}: {e}"
        finally:
            was_up, up_seconds = self._down(client)
        if outcome is not None:
            return outcome, 0.0, why
        if was_up:
            return ConnectionOutcome.LOST, up_seconds, self._refusal or why
        if self._refusal == "unsupported":
            return ConnectionOutcome.UNSUPPORTED, 0.0, "it does not speak this version of MQTT"
        return (ConnectionOutcome.REFUSED, 0.0, self._refusal) if self._refusal else (ConnectionOutcome.MUTE, 0.0, why)

    def _loop(self, client: mqtt.Client) -> str:
        """Serve the socket until it ends; returns why."""
        silent_until = time.monotonic() + self._settings.connect_timeout
        while not self._stopping.is_set():
            code = client.loop(_SELECT_SECONDS)
            self._pass_on_answers()
            if code != mqtt.MQTT_ERR_SUCCESS:
                return mqtt.error_string(code)
            if self._refusal:
                return self._refusal
            if self._again.is_set() and self._is_up:
                client.disconnect()
                client.loop(0.1)
                return _RENEWING
            if not self._is_up and time.monotonic() > silent_until:
                return f"no answer to CONNECT within {self._settings.connect_timeout:g} s"
        self._say_goodbye(client)
        return "stopped"

    def _say_goodbye(self, client: mqtt.Client) -> None:
        if not self._is_up:
            return
        info = client.publish(
            topics.up(self._device_id, topics.UpChannel.STATUS), self._status.offline(), qos=1, retain=True
        )
        deadline = time.monotonic() + _GOODBYE_SECONDS
        while not info.is_published() and time.monotonic() < deadline:
            if client.loop(0.1) != mqtt.MQTT_ERR_SUCCESS:
                return
        client.disconnect()
        client.loop(0.1)

    def _down(self, client: mqtt.Client) -> tuple[bool, float]:
        with self._mutex:
            self._client = None
            self._waiting.clear()
        self._answers.clear()
        self._unclaimed.clear()
        was_up, self._is_up = self._is_up, False
        sock = client.socket()
        if sock is not None:
            sock.close()
        if was_up:
            self._listener.disconnected()
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
        # With this hook paho leaves the writing to the thread that runs its loop; two writers would mix their packets.
        client.on_socket_register_write = lambda _client, _data, _sock: None
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        if server.tls:
            assert self._credentials is not None
            client.tls_set_context(self._credentials.context())
        self._has_shown = server.tls
        if self._settings.username is not None:
            client.username_pw_set(self._settings.username, self._password)
        client.will_set(topics.up(self._device_id, topics.UpChannel.STATUS), self._status.will, qos=1, retain=True)
        return client

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any) -> None:
        if reason.is_failure:
            unsupported = reason.value in _UNSUPPORTED_CODES or str(reason) == "Unsupported protocol version"
            self.refusals += 1
            self._refusal = "unsupported" if unsupported else f"refused: {reason} ({reason.value})"
            return
        wanted = (
            [(topics.down(self._device_id, channel), SubscribeOptions(qos=1)) for channel in topics.DownChannel]
            if _level(client) == MQTT5
            else [(topics.down(self._device_id, channel), 1) for channel in topics.DownChannel]
        )
        client.subscribe(wanted)
        client.publish(topics.up(self._device_id, topics.UpChannel.STATUS), self._status.online(), qos=1, retain=True)
        self._was_up_at = time.monotonic()
        with self._mutex:
            self._client = client
        self._is_up = True
        if self._credentials is not None and self._has_shown:
            self._credentials.worked()
        _log.info(
            "connected to %s:%s by MQTT %s", client.host, client.port, "5" if _level(client) == MQTT5 else "3.1.1"
        )
        self._listener.connected()

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _props: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                # Staying would mean to report and never hear; later the broker may have the rules that are missing now.
                _log.error("the broker refused a subscription: %s; commands and receipts would not arrive", reason)
                self._refusal = f"a subscription was refused: {reason} ({reason.value})"

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, _props: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._refusal = f"disconnected by the broker: {reason} ({reason.value})"

    def _on_publish(self, client: mqtt.Client, _data: Any, mid: int, reason: ReasonCode, _props: Any) -> None:
        if reason.value >= _FIRST_FAILURE:
            _log.warning("the broker refused a message: %s (%s)", reason, reason.value)
        # Paho holds its own lock here, so whoever waits hears it only after paho's loop has returned.
        self._answers.append((client, mid, reason.value < _FIRST_FAILURE and reason.value != NO_SUBSCRIBERS))

    def _pass_on_answers(self) -> None:
        later: list[tuple[mqtt.Client, int, bool]] = []
        while self._answers:
            client, mid, taken = self._answers.popleft()
            with self._mutex:
                confirmed = self._waiting.pop((client, mid), None)
            if confirmed is not None:
                confirmed(taken)
            elif mid in self._unclaimed:
                self._unclaimed.discard(mid)
            else:
                # The answer was faster than the thread that sent the message could say who waits for it.
                self._unclaimed.add(mid)
                later.append((client, mid, taken))
        self._answers.extend(later)

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            channel = next(c for c in topics.DownChannel if topics.down(self._device_id, c) == message.topic)
        except (StopIteration, UnicodeDecodeError):
            _log.warning("a message on a topic that is not ours was ignored")
            return
        self._listener.received(channel, bytes(message.payload))


def send_at_once(client: mqtt.Client) -> None:
    """Have the kernel send small packets at once: waiting to fill them costs up to 40 ms for each message."""
    sock = client.socket()
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _level(client: mqtt.Client) -> int:
    return int(client.protocol)


def _clean_start(attempt: ConnectionAttempt) -> dict[str, Any]:
    """The session outlives the connection: in MQTT 5 said here, in 3.1.1 by the client's constructor."""
    if attempt.level != MQTT5:
        return {}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.SessionExpiryInterval = SESSION_EXPIRY_SECONDS
    return {"clean_start": False, "properties": properties}


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer, the server's name and chain checked, with the client certificate where one is set.

    Raises:
        OSError: a file cannot be loaded (ssl.SSLError: it is not what it should be).
    """
    context = ssl.create_default_context(cafile=str(settings.ca) if settings.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate is not None:
        passphrase = read_secret(settings.key_passphrase_file) if settings.key_passphrase_file else ""
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: passphrase)
    return context
