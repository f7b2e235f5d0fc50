"""The controller's MQTT connection: incoming messages with a ticket to acknowledge them, outgoing messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message that the broker holds until it is acknowledged.

    `ticket` identifies the delivery; it is void after a reconnect, when the broker delivers again with `dup` set.
    `received_at` is monotonic seconds.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    ticket: int
    received_at: float


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """For health and readiness.

    `resumed_at`: when it last resumed a session that may have queued messages, monotonic seconds; `None`: never.
    """

    connected: bool
    server: str
    protocol: str
    since: float
    detail: str
    resumed_at: float | None = None


class Messages(Protocol):
    """A connection that survives broker restarts; every method is called on the event loop's thread."""

    async def run(self) -> None:
        """Connects and reconnects (back-off with jitter) until it is cancelled, then disconnects cleanly."""
        ...

    async def receive(self, most: int) -> Sequence[IncomingMessage]:
        """Waits for a message, then returns all that have arrived, in order, at most `most`."""
        ...

    def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        """Sends the PUBACKs in the order given, which has to be the order of receipt."""
        ...

    def publish(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        """Queues a QoS 1 message; `False` if it was not, because the queue is full or the connection is down."""
        ...

    def publish_nowait(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        """Sends a QoS 0 message, which may be lost; `False` if the connection is down or congested."""
        ...

    async def publish_confirmed(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> None:
        """Publishes at QoS 1 and waits for the broker's PUBACK.

        Raises:
            MessagesError: not connected, refused (MQTT 5 reason >= 128), or no PUBACK in time.
        """
        ...

    @property
    def state(self) -> ConnectionState: ...
