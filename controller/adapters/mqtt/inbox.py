"""Received messages and outstanding PUBACKs, in the order of arrival, in whatever order they are acknowledged."""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from controller.adapters.mqtt.packets import InboundPublish
from controller.ports.messages import IncomingMessage

NO_TICKET: Final = -1
_ACK: Final = {1: b"\x40\x02", 2: b"\x70\x02"}  # PUBACK; PUBCOMP for a broker that sends QoS 2 to a QoS 1 subscription


class Inbox:
    """Buffers messages between the socket and `receive`, and PUBACKs between `acknowledge` and the socket.

    A ticket counts the deliveries of this process, because the broker reuses packet ids.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        """`most` messages or `most_bytes` of payload fill it."""
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[IncomingMessage] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        # The PUBACK of each unacknowledged delivery in the order of arrival; `_first` is the first one's ticket.
        self._owed: deque[bytes] = deque()
        self._first = 0
        self._next = 0
        self._early: set[int] = set()  # acknowledged before an earlier delivery

    @property
    def full(self) -> bool:
        """Whether reading has to stop."""
        return len(self._waiting) >= self._most or self._waiting_bytes >= self._most_bytes

    @property
    def has_room(self) -> bool:
        """Whether it is at most half full, so that reading can resume."""
        return len(self._waiting) * 2 <= self._most and self._waiting_bytes * 2 <= self._most_bytes

    def begin(self, *, session_present: bool) -> None:
        """Starts a connection: earlier tickets become void, and messages that a kept session redelivers are dropped."""
        self._owed.clear()
        self._early.clear()
        self._first = self._next
        if session_present:
            self._waiting = deque(message for message in self._waiting if message.qos == 0)
            self._waiting_bytes = sum(len(message.payload) for message in self._waiting)

    def put(self, topic: str, message: InboundPublish, now: float) -> None:
        """Adds a delivery that arrived at `now` (monotonic seconds); `topic` is decoded by the caller."""
        ticket = NO_TICKET
        _, payload, qos, retain, dup, packet_id = message
        if qos:
            ticket = self._next
            self._next = ticket + 1
            self._owed.append(_ACK[qos] + packet_id.to_bytes(2))
        self._waiting.append(IncomingMessage(topic, payload, qos, retain, dup, ticket, now))
        self._waiting_bytes += len(payload)
        if len(self._waiting) == 1:
            self._arrived.set()

    async def take(self, most: int) -> Sequence[IncomingMessage]:
        """Waits for a message, then returns up to `most`."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        waiting = self._waiting
        if len(waiting) <= most:
            self._waiting, self._waiting_bytes = deque(), 0
            return list(waiting)
        taken = list(islice(waiting, most))
        for message in taken:
            waiting.popleft()
            self._waiting_bytes -= len(message.payload)
        return taken

    def settle(self, messages: Sequence[IncomingMessage]) -> bytes:
        """Returns the PUBACKs that may be sent now, in the order of arrival [MQTT-4.6.0-2]."""
        due: list[bytes] = []
        for message in messages:
            ticket = message.ticket
            if ticket == self._first:
                due.append(self._owed.popleft())
                self._first += 1
            elif self._first < ticket < self._next:
                self._early.add(ticket)
            while self._early and self._first in self._early:
                self._early.remove(self._first)
                due.append(self._owed.popleft())
                self._first += 1
        return b"".join(due)
