"""An MQTT 5 client over paho that records what the broker sends."""

import ssl
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.waiting import wait_for

PATIENCE_SECONDS: Final = 10.0
SESSION_SECONDS: Final = 300


class Device:
    """One client; with `reconnects` it reconnects at once, to its addresses in turn."""

    def __init__(
        self,
        client_id: str,
        addresses: list[tuple[str, int]],
        *,
        user: tuple[str, str] | None = None,
        persistent: bool = False,
        reconnects: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.client_id = client_id
        self.connacks: list[int] = []
        self.disconnects: list[int] = []
        self.messages: list[tuple[str, bytes]] = []
        self.subacks: dict[int, list[int]] = {}
        self.pubacks: dict[int, int] = {}
        self._addresses = addresses
        self._persistent = persistent
        self._reconnects = reconnects
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        if user is not None:
            self._client.username_pw_set(*user)
        if tls is not None:
            self._client.tls_set_context(tls)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish

    @property
    def is_connected(self) -> bool:
        """Whether the client believes so."""
        return self._client.is_connected()

    def connect(self) -> Self:
        """Connects, and waits for the CONNACK, whatever its code."""
        before = len(self.connacks)
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=self.client_id)
        self._thread.start()
        wait_for(lambda: len(self.connacks) > before, f"CONNACK of {self.client_id}")
        return self

    def close(self) -> None:
        """Disconnects, and reconnects no more."""
        self._stop.set()
        self._client.disconnect()
        if self._thread is not None:
            self._thread.join(PATIENCE_SECONDS)
            assert not self._thread.is_alive()

    def subscribe(self, topic: str) -> int:
        """Subscribes at QoS 1; returns the reason code."""
        code, mid = self._client.subscribe(topic, qos=1)
        assert code == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert mid is not None
        wait_for(lambda: mid in self.subacks, f"SUBACK for {topic}")
        return self.subacks[mid][0]

    def publish(self, topic: str, payload: bytes = b"x") -> int:
        """Publishes at QoS 1; returns the reason code of the PUBACK."""
        info = self._client.publish(topic, payload, qos=1)
        wait_for(lambda: info.mid in self.pubacks, f"PUBACK for {topic}")
        return self.pubacks[info.mid]

    def got(self, topic: str) -> list[bytes]:
        """The payloads received on a topic."""
        return [payload for each, payload in self.messages if each == topic]

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        turn = 0
        while not self._stop.is_set():
            host, port = self._addresses[turn % len(self._addresses)]
            turn += 1
            try:
                self._attempt(host, port)
            except OSError:
                time.sleep(0.01)
            if not self._reconnects:
                return

    def _attempt(self, host: str, port: int) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it unannotated
        if self._persistent:
            properties.SessionExpiryInterval = SESSION_SECONDS
        self._client.connect(host, port, clean_start=not self._persistent, properties=properties)
        while self._client.loop(timeout=0.05) == MQTTErrorCode.MQTT_ERR_SUCCESS:
            pass

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        self.connacks.append(code.value)

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        self.disconnects.append(code.value)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self.messages.append((message.topic, bytes(message.payload)))

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, codes: list[ReasonCode], _properties: Any) -> None:
        self.subacks[mid] = [code.value for code in codes]

    def _on_publish(self, _client: Any, _data: Any, mid: int, code: ReasonCode, _properties: Any) -> None:
        self.pubacks[mid] = code.value
