"""A sender of notifications that keeps what it was given."""

from collections.abc import Callable
from dataclasses import dataclass, field

from controller.domain.notifications.model import Delivery, Sink
from controller.domain.notifications.retry import DELIVERED, Outcome


@dataclass(slots=True)
class MemorySender:
    """`sent`: sink, delivery and number of missed ones of every attempt. `answer`: what becomes of an attempt."""

    sent: list[tuple[str, Delivery, int]] = field(default_factory=list)
    answer: Callable[[Sink, Delivery], Outcome] = lambda _sink, _delivery: DELIVERED

    async def send(self, sink: Sink, delivery: Delivery, missed: int) -> Outcome:
        self.sent.append((sink.name, delivery, missed))
        return self.answer(sink, delivery)

    def kinds(self, sink: str) -> list[str]:
        """What a sink was told, in order."""
        return [delivery.message.kind for name, delivery, _ in self.sent if name == sink]
