"""Decides how the next connection is tried: which server, which protocol, after which wait."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal, Self

from schemas.backoff import Backoff

RECONNECT: Final = Backoff(first=1.0, cap=60.0)  # seconds
STEADY_SECONDS: Final = 30.0  # a connection that lasted this long resets the back-off
MQTT5: Final = 5
MQTT311: Final = 4
ProtocolLevel = Literal[4, 5]


class ConnectionOutcome(StrEnum):
    """How a connection, or the attempt at one, ended."""

    UNREACHABLE = "unreachable"
    """No TCP or TLS connection."""
    MUTE = "mute"
    """The broker took the connection and never answered the CONNECT, or closed it without an answer."""
    UNSUPPORTED = "unsupported"
    """The broker does not speak this protocol version."""
    REFUSED = "refused"
    """The broker answered no."""
    LOST = "lost"
    """It was up and ended."""


@dataclass(frozen=True, slots=True)
class ConnectionAttempt:
    """The next connection to try; `number` counts attempts since the last steady one."""

    level: ProtocolLevel
    servers: int
    server: int = 0
    number: int = 0
    is_auto: bool = True
    has_worked: bool = False
    wait_ceiling: float = 0.0

    @classmethod
    def first(cls, protocol: Literal["auto", "5", "3.1.1"], servers: int) -> Self:
        """The first attempt: the first server, MQTT 5 where it is allowed, at once."""
        return cls(level=MQTT311 if protocol == "3.1.1" else MQTT5, servers=servers, is_auto=protocol == "auto")

    def worked(self) -> Self:
        """The broker accepted: this protocol is remembered."""
        return replace(self, has_worked=True)

    def after(self, outcome: ConnectionOutcome, up_seconds: float, backoff: Backoff = RECONNECT) -> Self:
        """The attempt that follows one which ended with `outcome` after being up for `up_seconds`."""
        number = 0 if outcome is ConnectionOutcome.LOST and up_seconds >= STEADY_SECONDS else self.number + 1
        ceiling = backoff.ceiling(max(0, number - 1))
        following = replace(self, number=number, wait_ceiling=ceiling)
        if self._other_protocol(outcome):
            # The same server again, at once the first time, in the other protocol.
            other: ProtocolLevel = MQTT311 if self.level == MQTT5 else MQTT5
            at_once = self.level == MQTT5 and self.number == 0
            return replace(following, level=other, wait_ceiling=0.0 if at_once else ceiling)
        if outcome is ConnectionOutcome.LOST:
            return following
        return replace(following, server=(self.server + 1) % self.servers)

    def _other_protocol(self, outcome: ConnectionOutcome) -> bool:
        if not self.is_auto:
            return False
        # A broker that worked and is mute now is ill, not old.
        return outcome is ConnectionOutcome.UNSUPPORTED or (outcome is ConnectionOutcome.MUTE and not self.has_worked)
