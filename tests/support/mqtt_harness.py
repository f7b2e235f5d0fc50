"""Shared by tests of the MQTT adapter: a running connection, its options, and the packets of a stream."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from controller.adapters.mqtt.messages import PahoMessages
from controller.adapters.mqtt.options import MqttOptions
from controller.ports.messages import IncomingMessage, Messages
from schemas.topics import UpChannel, up
from tests.support.certs import Certs
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually

CLIENT_ID = "cordon-controller"
TOPIC = up("edge-1", UpChannel.POSTURE)
PATIENCE_SECONDS = 10.0


@dataclass(slots=True)
class Running:
    """A connection and its log."""

    link: Messages  # only the port
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def count(self, event: str) -> int:
        """How often `event` was logged."""
        return sum(name == event for name, _ in self.events)

    async def connected(self) -> None:
        """Waits until it is connected."""
        await eventually(lambda: self.link.state.connected, lambda: f"{self.link.state} {self.events}")

    async def down(self) -> None:
        """Waits until it is not connected."""
        await eventually(lambda: not self.link.state.connected, lambda: f"{self.link.state} {self.events}")

    async def take(self, count: int) -> list[IncomingMessage]:
        """Receives so many messages, without acknowledging them."""
        messages: list[IncomingMessage] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(messages) < count:
                messages += await self.link.receive(count - len(messages))
        return messages

    async def nothing(self, seconds: float = 0.3) -> None:
        """Asserts that no message arrives."""
        try:
            async with asyncio.timeout(seconds):
                messages = await self.link.receive(1)
        except TimeoutError:
            return
        raise AssertionError(f"did not expect {messages}")


@asynccontextmanager
async def running(options: MqttOptions, rand: Callable[[], float] = lambda: 0.5) -> AsyncIterator[Running]:
    """Runs a connection."""
    events: list[tuple[str, dict[str, object]]] = []

    def log(event: str, fields: Mapping[str, object]) -> None:
        events.append((event, dict(fields)))

    link = PahoMessages(options, rand=rand, log=log)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(link.run())
        try:
            yield Running(link, events)
        finally:
            task.cancel()


def plain(port: int, **more: Any) -> MqttOptions:
    """Options for a plain listener on this machine, with a short back-off."""
    return fast(servers=(f"mqtt://127.0.0.1:{port}",), **more)


def secure(broker: Mosquitto, certs: Certs, **more: Any) -> MqttOptions:
    """Options for the TLS listener, with the controller's own certificate."""
    certificate, key = certs.client(CLIENT_ID)
    given: dict[str, Any] = {"ca": certs.ca, "certificate": certificate, "key": key} | more
    return fast(servers=(f"mqtts://127.0.0.1:{broker.tls_port}",), **given)


def fast(**given: Any) -> MqttOptions:
    """Options with short waits."""
    short: dict[str, Any] = {"client_id": CLIENT_ID, "backoff_floor_seconds": 0.05, "backoff_ceiling_seconds": 0.1}
    return MqttOptions(**(short | {"refused_wait_seconds": 0.4} | given))


def packets(stream: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
    """The MQTT packets of one direction: first byte, and the bytes after the length."""
    at = 0
    while at < len(stream):
        first, size, shift = stream[at], 0, 0
        at += 1
        while True:
            byte = stream[at]
            at += 1
            size |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        yield first, bytes(stream[at : at + size])
        at += size


def pubacks(stream: bytes | bytearray) -> list[int]:
    """Packet ids of the PUBACKs, in the order sent."""
    return [int.from_bytes(body[:2]) for first, body in packets(stream) if first == 0x40]
