"""paho over a `BufferedSocket`; handles the differences between MQTT 5 and 3.1.1."""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from controller.adapters.mqtt.buffered_socket import BufferedSocket
from controller.adapters.mqtt.options import MqttOptions
from schemas.broker_address import BrokerAddress

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # exists for type checkers only

MqttVersion = Literal["5", "3.1.1"]

_EXPIRIES_KEPT: Final = 256  # different seconds
_PUBLISH_OVERHEAD: Final = 32  # bytes: fixed header, lengths, packet id, message expiry


class PahoClient(paho.Client):
    """A paho client whose socket `opener` creates."""

    def __init__(self, opener: Callable[[], BufferedSocket], options: MqttOptions, version: MqttVersion) -> None:
        self._five = version == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            # 3.1.1 has no expiry: a session that ends with the connection has to be a clean session.
            clean_session=None if self._five else options.session_expiry_seconds == 0,
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._opener = opener
        self._options = options
        self.max_packet: int | None = None  # bytes, from the CONNACK
        self.max_queued_messages_set(options.max_queued)
        self.max_inflight_messages_set(0)  # the publish queue keeps the window
        if options.username is not None:
            self.username_pw_set(options.username, options.password)

    def _create_socket(self) -> "SocketLike":
        return self._opener()

    def dial(self, server: BrokerAddress) -> None:
        """Opens the socket and writes the CONNECT into its buffer; blocks.

        Raises:
            OSError: no connection.
        """
        properties = None
        if self._five:
            properties = _properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = self._options.session_expiry_seconds
            properties.ReceiveMaximum = self._options.receive_maximum
            properties.MaximumPacketSize = self._options.max_packet_bytes
        self.connect(
            server.host,
            server.port,
            keepalive=self._options.keepalive_seconds,
            clean_start=False if self._five else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
        )

    def subscribe_all(self, topics: tuple[str, ...]) -> None:
        """Subscribes at QoS 1; MQTT 5 delivers retained messages only when the subscription is new."""
        if self._five:
            five = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            self.subscribe([(topic, five) for topic in topics])
        else:
            self.subscribe([(topic, 1) for topic in topics])

    def publish_packet(self, topic: str, payload: bytes, expiry_seconds: float | None) -> int | None:
        """Publishes at QoS 1; returns the packet id, or None when paho accepts nothing now. 3.1.1 has no expiry.

        Raises:
            ValueError: the message can never be sent.
        """
        if not topic:
            raise ValueError("the topic is empty")
        size = len(payload) + len(topic.encode()) + _PUBLISH_OVERHEAD
        if self.max_packet is not None and size > self.max_packet:
            raise ValueError(f"{size} bytes, the broker accepts {self.max_packet}")
        properties = None
        if expiry_seconds is not None and self._five:
            properties = _expiring(max(1, round(expiry_seconds)))
        info = self.publish(topic, payload, qos=1, properties=properties)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None


class _Packed(Properties):
    """Properties of a PUBLISH, encoded once: the receipts of all reports have nearly the same."""

    _encoded: bytes

    def __init__(self, seconds: int) -> None:
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # its constructor carries no annotations
        self.MessageExpiryInterval = seconds
        # Its own `__setattr__` knows only the names of MQTT.
        object.__setattr__(self, "_encoded", super().pack())  # type: ignore[no-untyped-call]

    def pack(self) -> bytes:
        return self._encoded


@lru_cache(maxsize=_EXPIRIES_KEPT)
def _expiring(seconds: int) -> Properties:
    return _Packed(seconds)


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # its constructor carries no annotations
