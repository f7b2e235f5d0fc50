"""Decides how the next connection is attempted: which server, which protocol version, after which wait."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal, Self

from schemas.backoff import Backoff

RECONNECT: Final = Backoff(first=1.0, cap=60.0)  # seconds
STEADY_SECONDS: Final = 30.0  # a connection that lasted this long resets the back-off
MQTT5: Final = 5
MQTT311: Final = 4
ProtocolLevel = Literal[4, 5]
PACKET_TOO_LARGE: Final = 149
# What to set at the broker where its reason code alone does not tell.
ADVICE: Final = {
    PACKET_TOO_LARGE: "a message is larger than the broker takes, and is not sent: raise mqtt.max_packet_size there",
    151: "the broker's licence allows no more sessions",  # EMQX 6.x
    154: "the agent's status is a retained message: set mqtt.retain_available = true at the broker",
    155: "the agent's messages have QoS 1: set mqtt.max_qos_allowed = 2 at the broker",
}


class ConnectionOutcome(StrEnum):
    """How a connection, or an attempt to connect, ended."""

    UNREACHABLE = "unreachable"
    """No TCP or TLS connection."""
    MUTE = "mute"
    """The broker accepted the connection but did not answer the CONNECT, or closed it without an answer."""
    UNSUPPORTED = "unsupported"
    """The broker does not support this protocol version."""
    REFUSED = "refused"
    """The broker refused the CONNECT."""
    LOST = "lost"
    """The connection was up and ended."""


@dataclass(frozen=True, slots=True)
class ConnectionAttempt:
    """The next attempt to connect; `number` counts attempts since the last steady connection."""

    level: ProtocolLevel
    servers: int
    server: int = 0
    number: int = 0
    negotiates_version: bool = True
    was_accepted: bool = False
    wait_ceiling: float = 0.0

    @classmethod
    def first(cls, protocol: Literal["auto", "5", "3.1.1"], servers: int) -> Self:
        """Returns the first attempt: the first server, MQTT 5 where it is allowed, without a wait."""
        level: ProtocolLevel = MQTT311 if protocol == "3.1.1" else MQTT5
        return cls(level=level, servers=servers, negotiates_version=protocol == "auto")

    def accepted(self) -> Self:
        """Returns the attempt with its protocol version confirmed by a broker."""
        return replace(self, was_accepted=True)

    def next_attempt(self, outcome: ConnectionOutcome, up_seconds: float, backoff: Backoff = RECONNECT) -> Self:
        """Returns the attempt after this one, which ended with `outcome` after being up for `up_seconds`."""
        number = 0 if outcome is ConnectionOutcome.LOST and up_seconds >= STEADY_SECONDS else self.number + 1
        ceiling = backoff.ceiling(max(0, number - 1))
        following = replace(self, number=number, wait_ceiling=ceiling)
        if self._should_change_version(outcome):
            # The same server in the other protocol version; the first time without a wait.
            other: ProtocolLevel = MQTT311 if self.level == MQTT5 else MQTT5
            is_first_change = self.level == MQTT5 and self.number == 0
            return replace(following, level=other, wait_ceiling=0.0 if is_first_change else ceiling)
        if outcome is ConnectionOutcome.LOST:
            return following
        return replace(following, server=(self.server + 1) % self.servers)

    def _should_change_version(self, outcome: ConnectionOutcome) -> bool:
        if not self.negotiates_version:
            return False
        # A broker that accepted this version before and is mute now has another fault.
        is_mute = outcome is ConnectionOutcome.MUTE and not self.was_accepted
        return is_mute or outcome is ConnectionOutcome.UNSUPPORTED


def explain(code: int, name: str) -> str:
    """Returns what a reason code of the broker means, where possible with what to do about it."""
    return f"{ADVICE.get(code, name)} ({code})"
