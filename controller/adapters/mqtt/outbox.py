"""Outgoing QoS 1 messages: a bounded queue with a window in flight, which survives a reconnect."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from controller.ports.errors import MessagesError, NoSubscriberError

_NO_SUBSCRIBER = 16
_FIRST_FAILURE = 128


@dataclass(slots=True, eq=False)
class OutgoingMessage:
    """A message to publish; `deadline` in monotonic seconds; `waiter` is resolved with the result."""

    topic: str
    payload: bytes
    deadline: float | None = None
    waiter: asyncio.Future[None] | None = None

    @property
    def is_expired(self) -> bool:
        """Whether its waiter has gone."""
        return self.waiter is not None and self.waiter.done()


# Publishes a message and returns its packet id, or None when it cannot be accepted now.
# Raises ValueError for a message that can never be sent.
PublishSender = Callable[[OutgoingMessage], int | None]


class PublishQueue:
    """The queue and the window; `MqttConnection` sends."""

    def __init__(self, most: int) -> None:
        """`most`: messages queued and in flight together."""
        self._most = most
        self._queue: deque[OutgoingMessage] = deque()
        self._in_flight: dict[int, OutgoingMessage] = {}
        self._send: PublishSender | None = None
        self._window = 0

    def __len__(self) -> int:
        return len(self._queue) + len(self._in_flight)

    @property
    def attached(self) -> bool:
        """Whether a connection is up."""
        return self._send is not None

    def enqueue(self, message: OutgoingMessage, now: float, *, opening: bool = False) -> bool:
        """Queues a message and sends; False when the queue is full, or no connection is up or `opening`."""
        if (self._send is None and not opening) or len(self) >= self._most:
            return False
        self._queue.append(message)
        self.flush(now)
        return True

    def attach(self, send: PublishSender, window: int, now: float) -> None:
        """Starts to send on a connection with `window` messages in flight."""
        self._send, self._window = send, window
        self.flush(now)

    def detach(self, reason: str) -> None:
        """Ends sending: messages with a waiter fail, the others are sent again, in order, on the next connection."""
        self._send = None
        messages = [*self._in_flight.values(), *self._queue]
        self._in_flight.clear()
        self._queue = deque(message for message in messages if message.waiter is None)
        for message in messages:
            if message.waiter is not None and not message.waiter.done():
                message.waiter.set_exception(MessagesError(f"no PUBACK: {reason}"))

    def on_acknowledged(self, packet_id: int, code: int, name: str, now: float) -> None:
        """Resolves the message that a PUBACK acknowledges."""
        message = self._in_flight.pop(packet_id, None)
        if message is not None and message.waiter is not None and not message.waiter.done():
            if code == _NO_SUBSCRIBER:
                message.waiter.set_exception(NoSubscriberError(f"nobody has subscribed to {message.topic}"))
            elif code >= _FIRST_FAILURE:
                error = MessagesError(f"the broker refused the message to {message.topic}: {name} (reason {code})")
                message.waiter.set_exception(error)
            else:
                message.waiter.set_result(None)
        self.flush(now)

    def flush(self, now: float) -> None:
        """Sends from the queue while the window has room."""
        while self._queue and self._send is not None and len(self._in_flight) < self._window:
            message = self._queue[0]
            if message.is_expired or (message.deadline is not None and message.deadline <= now):
                self._queue.popleft()
                if message.waiter is not None and not message.waiter.done():
                    message.waiter.set_exception(MessagesError(f"the message to {message.topic} expired unsent"))
                continue
            try:
                packet_id = self._send(message)
            except ValueError as error:
                self._queue.popleft()
                if message.waiter is not None and not message.waiter.done():
                    message.waiter.set_exception(MessagesError(f"cannot be sent to {message.topic!r}: {error}"))
                continue
            if packet_id is None:
                return
            self._queue.popleft()
            self._in_flight[packet_id] = message
