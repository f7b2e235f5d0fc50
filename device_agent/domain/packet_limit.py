"""How large a packet the broker takes: what it announced, or what it closed connections for. Pure."""

from dataclasses import dataclass, replace
from typing import Final, Self

SUSPICIOUS_BYTES: Final = 4096  # a broker that takes no packets of this size could not serve devices
LOSSES: Final = 4  # connections lost in a row with the same large message, until it counts as too large
_OVERHEAD_BYTES: Final = 16  # of a PUBLISH besides topic and payload, at most: header, length, id, empty properties


def packet_bytes(topic: str, payload: bytes) -> int:
    """Returns the largest size of a PUBLISH packet with QoS 1."""
    return _OVERHEAD_BYTES + len(topic.encode()) + len(payload)


@dataclass(frozen=True, slots=True)
class PacketLimit:
    """Bytes of a packet; 0 is no limit. `announced` is the broker's, `learned` what its silence taught."""

    announced: int = 0
    learned: int = 0
    suspect: int = 0
    losses: int = 0

    @property
    def most(self) -> int:
        """The largest packet that may be sent; 0: any."""
        return min((limit for limit in (self.announced, self.learned) if limit), default=0)

    def connected(self, announced: int) -> Self:
        """Returns the limit on a new connection, whose CONNACK announced this one (0: none)."""
        return replace(self, announced=announced)

    def acknowledged(self, size: int) -> Self:
        """Returns the limit after a PUBACK for a packet of this size."""
        return replace(self, suspect=0, losses=0) if self.suspect and size >= self.suspect else self

    def lost(self, largest: int, *, was_too_large: bool, may_tell: bool) -> Self:
        """Returns the limit after a connection was lost while packets were unacknowledged.

        Args:
            largest: size of the largest of them, 0 without one.
            was_too_large: the broker gave this as the reason.
            may_tell: the protocol lets the broker tell the reason (MQTT 5), so that a loss alone means nothing.
        """
        if not largest or (may_tell and not was_too_large):
            return self
        if was_too_large:
            return replace(self, learned=largest - 1, suspect=0, losses=0)
        if largest < SUSPICIOUS_BYTES:
            return replace(self, suspect=0, losses=0)
        losses = self.losses + 1 if largest == self.suspect else 1
        if losses < LOSSES:
            return replace(self, suspect=largest, losses=losses)
        return replace(self, learned=largest - 1, suspect=0, losses=0)
