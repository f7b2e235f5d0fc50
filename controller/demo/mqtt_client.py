"""An MQTT client besides fleet and controller: independent evidence of what the broker delivers and refuses."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from controller.demo.broker import DemoBroker
from controller.demo.observations import ARRIVED, ObservationLog, SimulatorObservation
from controller.demo.options import DemoError

TIMEOUT_SECONDS: Final = 10.0
MAX_PAYLOAD: Final = 4096  # bytes that are read of a message
REFUSED: Final = 128  # this reason code and all above
_KEEPALIVE: Final = 30  # seconds

DemoMessageCallback = Callable[[str, bytes, float], None]
"""Topic, payload, monotonic seconds; called on the event loop's thread."""


class DemoMqttClient:
    """Connected while its `async with` block runs, with MQTT 5 and a clean session; `server` selects the address."""

    def __init__(
        self, broker: DemoBroker, client_id: str, *, server: int = 0, on_message: DemoMessageCallback | None = None
    ) -> None:
        self.client_id = client_id
        self._address = broker.servers[server % len(broker.servers)]
        self._message_callback = on_message
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[int] = self._loop.create_future()
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._topics: list[str] = []
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
        tls = broker.tls(client_id)
        if tls is not None:
            client.tls_set_context(tls)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        self._client = client

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._client.connect, self._address.host, self._address.port, _KEEPALIVE)
            self._client.loop_start()
            async with asyncio.timeout(TIMEOUT_SECONDS):
                code = await self._connected
        except (OSError, TimeoutError) as e:
            await self._disconnect()
            raise DemoError(f"{self.client_id} could not connect to {self._address}: {e or 'no answer'}") from e
        if code:
            await self._disconnect()
            raise DemoError(f"{self.client_id} was refused by the broker at {self._address}: reason {code}")
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._disconnect()

    async def subscribe(self, topic: str) -> int:
        """Subscribes at QoS 1, also after a reconnect; returns the reason code of the SUBACK."""
        code = await self._acknowledged(*self._client.subscribe(topic, qos=1))
        if code < REFUSED:
            self._topics.append(topic)
        return code

    async def publish(self, topic: str, payload: bytes) -> int:
        """Publishes at QoS 1; returns the reason code of the PUBACK."""
        info = self._client.publish(topic, payload, qos=1)
        return await self._acknowledged(info.rc, info.mid)

    async def _acknowledged(self, error: int, packet_id: int | None) -> int:
        if error != mqtt.MQTT_ERR_SUCCESS or packet_id is None:
            raise DemoError(f"{self.client_id} is not connected any more")
        # The acknowledgement cannot be missed: it comes over this event loop, which runs from the next `await` on.
        self._acks[packet_id] = self._loop.create_future()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._acks[packet_id]
        except TimeoutError as e:
            raise DemoError(f"{self.client_id} got no answer from the broker at {self._address}") from e
        finally:
            del self._acks[packet_id]

    async def _disconnect(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    # In paho's thread.

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any) -> None:
        self._call(_settle, self._connected, reason.value)
        for topic in self._topics:
            client.subscribe(topic, qos=1)

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if self._message_callback is not None:
            payload = bytes(message.payload[:MAX_PAYLOAD])
            self._call(self._message_callback, message.topic, payload, time.monotonic())

    def _on_publish(self, _client: mqtt.Client, _data: Any, packet_id: int, reason: ReasonCode, _props: Any) -> None:
        self._call(self._acknowledge, packet_id, reason.value)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, packet_id: int, reasons: list[ReasonCode], _props: Any
    ) -> None:
        self._call(self._acknowledge, packet_id, reasons[0].value)

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    # On the event loop's thread.

    def _acknowledge(self, packet_id: int, code: int) -> None:
        if packet_id in self._acks:
            _settle(self._acks[packet_id], code)


def _settle(future: asyncio.Future[int], code: int) -> None:
    if not future.done():  # it is after a reconnect, or when its wait has ended
        future.set_result(code)


def telemetry_subscriber(broker: DemoBroker, client_id: str, observations: ObservationLog) -> DemoMqttClient:
    """An application that records which telemetry reaches it from which device."""

    def on_message(topic: str, payload: bytes, moment: float) -> None:
        try:
            number = json.loads(payload)["n"]
        except (ValueError, KeyError, TypeError):
            return  # not of this fleet
        observations.add(SimulatorObservation(topic.split("/")[1], ARRIVED, moment, {"n": number}))

    return DemoMqttClient(broker, client_id, on_message=on_message)
