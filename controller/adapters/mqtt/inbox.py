"""What arrived and what is still owed a PUBACK: kept in the order received, whatever order the answers come in."""

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
    """Messages between the socket and `receive`, and the acknowledgements between `acknowledge` and the socket.

    A ticket counts the deliveries of this process, so packet ids that the broker uses again cannot be confused.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        """Take the bounds in messages and in payload bytes at which `full` turns true."""
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[IncomingMessage] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        # The PUBACK packet of each delivery not yet answered, in the order received; the first one's ticket.
        self._owed: deque[bytes] = deque()
        self._first = 0
        self._next = 0
        # Answers that came before those of earlier deliveries.
        self._early: set[int] = set()

    @property
    def full(self) -> bool:
        """Reading has to stop until something was taken."""
        return len(self._waiting) >= self._most or self._waiting_bytes >= self._most_bytes

    @property
    def roomy(self) -> bool:
        """Enough was taken for reading to go on without stopping again at once."""
        return len(self._waiting) * 2 <= self._most and self._waiting_bytes * 2 <= self._most_bytes

    def begin(self, *, session_present: bool) -> None:
        """Start a connection: earlier tickets are void, and what a kept session will deliver again is dropped here."""
        self._owed.clear()
        self._early.clear()
        self._first = self._next
        if session_present:
            self._waiting = deque(message for message in self._waiting if message.qos == 0)
            self._waiting_bytes = sum(len(message.payload) for message in self._waiting)

    def put(self, topic: str, message: InboundPublish, now: float) -> None:
        """Add one delivery that arrived `now` (monotonic seconds); `topic` is given apart because decoding may fail."""
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
        """Wait for one, then take up to `most`."""
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
        """Give the PUBACK packets that may leave now: no packet overtakes an earlier one's [MQTT-4.6.0-2]."""
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
