"""Outgoing messages: bounded, at most a window of them on their way, carried over when a connection ends."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from controller.ports.errors import MessagesError, NoSubscriberError

_NO_SUBSCRIBER = 16
_FIRST_FAILURE = 128


@dataclass(slots=True, eq=False)
class OutgoingMessage:
    """One message on its way out; `deadline` in monotonic seconds; `waiter` is told how it ended."""

    topic: str
    payload: bytes
    deadline: float | None = None
    waiter: asyncio.Future[None] | None = None

    @property
    def given_up(self) -> bool:
        """Somebody waited for it and does not any more."""
        return self.waiter is not None and self.waiter.done()


# Hands a letter to the connection and gives its packet id, or None when it cannot be taken now.
# Raises ValueError for what can never be sent.
PublishSender = Callable[[OutgoingMessage], int | None]


class PublishQueue:
    """The queue and the window; `Connection` does the sending."""

    def __init__(self, most: int) -> None:
        """Take the bound: letters queued and under way together."""
        self._most = most
        self._queue: deque[OutgoingMessage] = deque()
        self._under_way: dict[int, OutgoingMessage] = {}
        self._send: PublishSender | None = None
        self._window = 0

    def __len__(self) -> int:
        return len(self._queue) + len(self._under_way)

    @property
    def attached(self) -> bool:
        """A connection is up to send on."""
        return self._send is not None

    def offer(self, letter: OutgoingMessage, now: float, *, opening: bool = False) -> bool:
        """Queue it and send what may be sent; False when the queue is full, or nothing is connected or `opening`."""
        if (self._send is None and not opening) or len(self) >= self._most:
            return False
        self._queue.append(letter)
        self.pump(now)
        return True

    def attach(self, send: PublishSender, window: int, now: float) -> None:
        """A connection is up and takes `window` messages at once."""
        self._send, self._window = send, window
        self.pump(now)

    def detach(self, reason: str) -> None:
        """The connection is gone: who waits is told, the rest goes out again, in its order, on the next one."""
        self._send = None
        letters = [*self._under_way.values(), *self._queue]
        self._under_way.clear()
        self._queue = deque(letter for letter in letters if letter.waiter is None)
        for letter in letters:
            if letter.waiter is not None and not letter.waiter.done():
                letter.waiter.set_exception(MessagesError(f"no PUBACK: {reason}"))

    def settled(self, packet_id: int, code: int, name: str, now: float) -> None:
        """The broker's PUBACK came."""
        letter = self._under_way.pop(packet_id, None)
        if letter is not None and letter.waiter is not None and not letter.waiter.done():
            if code == _NO_SUBSCRIBER:
                letter.waiter.set_exception(NoSubscriberError(f"nobody has subscribed to {letter.topic}"))
            elif code >= _FIRST_FAILURE:
                error = MessagesError(f"the broker refused the message to {letter.topic}: {name} (reason {code})")
                letter.waiter.set_exception(error)
            else:
                letter.waiter.set_result(None)
        self.pump(now)

    def pump(self, now: float) -> None:
        """Send from the queue while the window has room."""
        while self._queue and self._send is not None and len(self._under_way) < self._window:
            letter = self._queue[0]
            if letter.given_up or (letter.deadline is not None and letter.deadline <= now):
                self._queue.popleft()
                if letter.waiter is not None and not letter.waiter.done():
                    letter.waiter.set_exception(MessagesError(f"the message to {letter.topic} expired unsent"))
                continue
            try:
                packet_id = self._send(letter)
            except ValueError as error:
                self._queue.popleft()
                if letter.waiter is not None and not letter.waiter.done():
                    letter.waiter.set_exception(MessagesError(f"cannot be sent to {letter.topic!r}: {error}"))
                continue
            if packet_id is None:
                return
            self._queue.popleft()
            self._under_way[packet_id] = letter
