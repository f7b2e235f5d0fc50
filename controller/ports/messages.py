"""The MQTT side as the rest of the controller sees it: messages in with a ticket to acknowledge, messages out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """One message that the broker holds until `Messages.acknowledge` was called with it.

    `ticket` identifies the delivery (it is void after a reconnect: the broker delivers again, `dup` set);
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
    """What the link is doing, for health and readiness.

    `resumed_at`: when it last took up a session at which messages may have waited, monotonic seconds; `None`: never.
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
        """Connect, stay connected (back-off with jitter), until cancelled; then disconnect cleanly."""
        ...

    async def receive(self, most: int) -> Sequence[IncomingMessage]:
        """Wait for at least one message, then take what has arrived, in order, at most `most`."""
        ...

    def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        """Send the PUBACKs, in the order given, which has to be the order received."""
        ...

    def publish(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        """Queue a QoS 1 message, `False` when the bounded queue is full or the link is down: nothing was queued."""
        ...

    def tell(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> bool:
        """Send a QoS 0 message, which may be lost; `False` when the link is down or clogged: nothing was sent."""
        ...

    async def publish_confirmed(self, topic: str, payload: bytes, *, expiry_seconds: int | None = None) -> None:
        """Publish at QoS 1 and wait for the broker's PUBACK.

        Raises:
            MessagesError: not connected, refused (MQTT 5 reason >= 128), or no PUBACK in time.
        """
        ...

    @property
    def state(self) -> ConnectionState:
        """The link as it is now."""
        ...
