"""An MQTT client of the demonstration's own, apart from fleet and controller: what it sees, the broker really did."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from controller.demo.access import DemoBrokerAccess
from controller.demo.observations import ARRIVED, ObservationLog, SimulatorObservation
from controller.demo.options import DemoError

PATIENCE_SECONDS: Final = 10.0
MAX_PAYLOAD: Final = 4096  # bytes that are looked at
_KEEPALIVE: Final = 30  # seconds

DemoMessageCallback = Callable[[str, bytes, float], None]
"""Topic, payload, monotonic seconds; called on the event loop's thread."""


class DemoMqttClient:
    """Connected while its `async with` block runs, with MQTT 5 and a session that ends with it."""

    def __init__(
        self, access: DemoBrokerAccess, client_id: str, *, server: int = 0, heard: DemoMessageCallback | None = None
    ) -> None:
        """Prepare it; `server` chooses the address, `heard` gets what arrives."""
        self.client_id = client_id
        self._address = access.address(server)
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[int] = self._loop.create_future()
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._early: dict[int, int] = {}
        self._mutex = threading.Lock()
        self._topics: list[str] = []
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
        tls = access.tls(client_id)
        if tls is not None:
            client.tls_set_context(tls)
        if access.user is not None:
            client.username_pw_set(access.user, access.password)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        self._client = client

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._client.connect, *self._address, _KEEPALIVE)
            self._client.loop_start()
            async with asyncio.timeout(PATIENCE_SECONDS):
                code = await self._connected
        except (OSError, TimeoutError) as e:
            await self._leave()
            raise DemoError(f"{self.client_id} could not connect to {self._where}: {e or 'no answer'}") from e
        if code:
            await self._leave()
            raise DemoError(f"{self.client_id} was refused by the broker at {self._where}: reason {code}")
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._leave()

    @property
    def _where(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    async def subscribe(self, topic: str) -> int:
        """Subscribe at QoS 1, also after a lost connection; the broker's reason code."""
        code = await self._answered(lambda: self._client.subscribe(topic, qos=1))
        if code < 128:
            self._topics.append(topic)
        return code

    async def publish(self, topic: str, payload: bytes) -> int:
        """Publish at QoS 1; the reason code of the broker's PUBACK."""

        def send() -> tuple[Any, int | None]:
            info = self._client.publish(topic, payload, qos=1)
            return info.rc, info.mid

        return await self._answered(send)

    async def _answered(self, send: Callable[[], tuple[Any, int | None]]) -> int:
        code, number = send()
        if code != mqtt.MQTT_ERR_SUCCESS or number is None:
            raise DemoError(f"{self.client_id} is not connected any more")
        future: asyncio.Future[int] = self._loop.create_future()
        with self._mutex:
            if number in self._early:
                return self._early.pop(number)
            self._answers[number] = future
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await future
        except TimeoutError as e:
            raise DemoError(f"{self.client_id} got no answer from the broker at {self._where}") from e

    async def _leave(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    # In paho's thread.

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any) -> None:
        self._call(lambda: _settle(self._connected, reason.value))
        for topic in self._topics:
            client.subscribe(topic, qos=1)

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        moment = time.monotonic()
        topic, payload = message.topic, bytes(message.payload[:MAX_PAYLOAD])
        if self._heard is not None:
            heard = self._heard
            self._call(lambda: heard(topic, payload, moment))

    def _on_publish(self, _client: mqtt.Client, _data: Any, number: int, reason: ReasonCode, _props: Any) -> None:
        self._answer(number, reason.value)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, number: int, reasons: list[ReasonCode], _props: Any
    ) -> None:
        self._answer(number, reasons[0].value)

    def _answer(self, number: int, code: int) -> None:
        with self._mutex:
            future = self._answers.pop(number, None)
            if future is None:
                self._early[number] = code
                return
        self._call(lambda: _settle(future, code))

    def _call(self, act: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act)


def _settle(future: asyncio.Future[int], code: int) -> None:
    # Done already after a second connection, or when whoever waited has left.
    if not future.done():
        future.set_result(code)


def bystander(access: DemoBrokerAccess, client_id: str, chronicle: ObservationLog) -> DemoMqttClient:
    """An application that takes in the fleet's own messages and writes down what reached it from whom."""

    def heard(topic: str, payload: bytes, moment: float) -> None:
        try:
            number = json.loads(payload)["n"]
        except (ValueError, KeyError, TypeError):
            return  # not of this fleet
        chronicle.add(SimulatorObservation(topic.split("/")[1], ARRIVED, moment, {"n": number}))

    return DemoMqttClient(access, client_id, heard=heard)
