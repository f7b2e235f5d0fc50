"""The session of a client: in-flight window, queue, subscriptions. Pure: the caller passes the time."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from controller.standin.messages import Delivery
from controller.standin.options import MAX_AWAITING_REL, MAX_INFLIGHT, MAX_QUEUE_MESSAGES
from controller.standin.topics import ParsedFilter
from controller.standin.zones import MqttLimits

MAX_PACKET_ID = 65_535


class InflightPhase(IntEnum):
    """The acknowledgement that an in-flight message waits for: PUBACK or PUBREC, or PUBCOMP."""

    ACK = 1
    COMP = 2


@dataclass(frozen=True, slots=True)
class SubscriptionOptions:
    """The options of one subscription."""

    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    subscription_id: int | None = None


@dataclass(slots=True)
class InflightMessage:
    """A message that was sent and not acknowledged yet."""

    delivery: Delivery
    phase: InflightPhase = InflightPhase.ACK


@dataclass(frozen=True, slots=True)
class OutgoingPacket:
    """A packet for the subscriber: a PUBLISH, or with `release` a PUBREL."""

    packet_id: int | None
    delivery: Delivery
    dup: bool = False
    release: bool = False


@dataclass(slots=True)
class Session:
    """The state of a client that its next connection takes over."""

    created_at: float
    max_queue: int = MAX_QUEUE_MESSAGES
    fatal_queue: int | None = None  # messages with which EMQX ends the session
    store_qos0: bool = True
    window: int = MAX_INFLIGHT
    subscriptions: dict[ParsedFilter, SubscriptionOptions] = field(default_factory=dict)
    queue: deque[Delivery] = field(default_factory=deque)
    inflight: dict[int, InflightMessage] = field(default_factory=dict)
    awaiting_rel: set[int] = field(default_factory=set)
    next_id: int = 1
    dropped: int = 0
    expired: int = 0

    def enqueue(self, delivery: Delivery) -> None:
        """Queues a message; a full queue drops its oldest message."""
        if delivery.qos == 0 and not self.store_qos0:
            self.dropped += 1
            return
        if self.max_queue and len(self.queue) >= self.max_queue:
            self.queue.popleft()
            self.dropped += 1
        self.queue.append(delivery)

    @property
    def is_too_large(self) -> bool:
        """Whether EMQX ends this session for the memory of its queue ("maximum heap size reached")."""
        return self.fatal_queue is not None and len(self.queue) >= self.fatal_queue

    def deliver(self, delivery: Delivery) -> OutgoingPacket | None:
        """Returns the packet to send if the window has room; else queues the message and returns None."""
        if delivery.qos == 0:
            return OutgoingPacket(None, delivery)
        if len(self.inflight) >= self.window:
            self.enqueue(delivery)
            return None
        return self._start(delivery)

    def _start(self, delivery: Delivery) -> OutgoingPacket:
        packet_id = self.next_id
        while packet_id in self.inflight:
            packet_id = packet_id % MAX_PACKET_ID + 1
        self.next_id = packet_id % MAX_PACKET_ID + 1
        self.inflight[packet_id] = InflightMessage(delivery)
        return OutgoingPacket(packet_id, delivery)

    def acknowledge(self, packet_id: int) -> bool | None:
        """Processes a PUBACK; returns True if it completes a message, False if unknown, None for a protocol error."""
        entry = self.inflight.get(packet_id)
        if entry is None or entry.phase is not InflightPhase.ACK:
            return False
        if entry.delivery.qos != 1:
            return None
        del self.inflight[packet_id]
        return True

    def received(self, packet_id: int) -> bool | None:
        """Processes a PUBREC; returns as `acknowledge`."""
        entry = self.inflight.get(packet_id)
        if entry is None or entry.phase is not InflightPhase.ACK:
            return False
        if entry.delivery.qos != 2:
            return None
        entry.phase = InflightPhase.COMP
        return True

    def completed(self, packet_id: int) -> bool | None:
        """Processes a PUBCOMP; returns as `acknowledge`."""
        entry = self.inflight.get(packet_id)
        if entry is None:
            return False
        if entry.delivery.qos != 2:
            return None
        if entry.phase is not InflightPhase.COMP:
            return False
        del self.inflight[packet_id]
        return True

    def refill(self, now: float) -> list[OutgoingPacket]:
        """Returns packets for queued messages as far as the window has room; drops expired messages."""
        out: list[OutgoingPacket] = []
        while self.queue and len(self.inflight) < self.window:
            delivery = self.queue.popleft()
            if delivery.message.expired(now):
                self.expired += 1
            elif delivery.qos == 0:
                out.append(OutgoingPacket(None, delivery))
            else:
                out.append(self._start(delivery))
        return out

    def resume(self, now: float, keep: Callable[[str], bool]) -> list[OutgoingPacket]:
        """Returns the first packets of a new connection: unacknowledged messages with DUP, then queued ones.

        Args:
            now: Unix time.
            keep: whether queued messages of a sender are delivered (EMQX drops those of banned clients).
        """
        out: list[OutgoingPacket] = []
        for packet_id, entry in self.inflight.items():
            if entry.phase is InflightPhase.COMP:
                out.append(OutgoingPacket(packet_id, entry.delivery, release=True))
            else:
                out.append(OutgoingPacket(packet_id, entry.delivery, dup=True))
        self.queue = deque(item for item in self.queue if keep(item.message.sender))
        out.extend(self.refill(now))
        return out

    def awaiting_full(self) -> bool:
        """Whether the limit of unreleased incoming QoS 2 messages is reached."""
        return len(self.awaiting_rel) >= MAX_AWAITING_REL

    def undelivered_shared(self) -> list[Delivery]:
        """Returns unacknowledged and queued messages of share groups, oldest first, for redispatch."""
        deliveries = [e.delivery for e in self.inflight.values() if e.phase is InflightPhase.ACK]
        deliveries.extend(self.queue)
        return [delivery for delivery in deliveries if delivery.share is not None and delivery.qos > 0]


def new_session(limits: MqttLimits, now: float, receive_maximum: int) -> Session:
    """Returns a session with these limits; the client's receive maximum can only reduce the window."""
    return Session(
        created_at=now,
        max_queue=limits.max_queue,
        fatal_queue=limits.fatal_queue,
        store_qos0=limits.store_qos0,
        window=min(receive_maximum, limits.max_inflight),
    )
