"""Events at simulated devices with their times, as input for demonstrations and benchmarks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ObservationKind(StrEnum):
    """The kinds of observations; each docstring lists the fields of `data`."""

    CONNECTED = "connected"
    """`mqtt` ("5" or "3.1.1"), `session_present`, `server`."""
    REFUSED = "refused"
    """The broker rejected CONNECT: `code`, `reason`."""
    UNREACHABLE = "unreachable"
    """No connection, or no answer to CONNECT: `reason`."""
    DISCONNECTED = "disconnected"
    """`code` of the broker's DISCONNECT, None when only the socket closed; `reason`."""
    REPORT_SENT = "report_sent"
    """`seq`, `report` ("full" or "heartbeat"), `digest`, `attempt`."""
    RECEIPT = "receipt"
    """`seq`, `verdict`, `reason`."""
    COMMAND_TAKEN = "command_taken"
    """`command_id`, `action`, `params`."""
    COMMAND_REJECTED = "command_rejected"
    """`command_id` (None without a trusted signature), `reason`."""
    COMMAND_DONE = "command_done"
    """`command_id`, `action`, `state`, `reason`."""
    PUBLISHED = "published"
    """A telemetry message was published: `topic`, `n`."""
    PUBACK = "puback"
    """The broker acknowledged a message: `topic`, `code`, and `seq` or `n` of the message."""
    SUBACK = "suback"
    """The broker acknowledged a subscription: `topic`, `code`."""
    MESSAGE = "message"
    """A message outside of Cordon's topics arrived: `topic`, `bytes`."""
    CHANGED = "changed"
    """The posture changed: `digest`."""
    CHANGE_REFUSED = "change_refused"
    """A requested change would make the posture invalid: `reason`."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One event at one device; `monotonic` as time.monotonic(), `wall` as time.time()."""

    device_id: str
    kind: ObservationKind
    monotonic: float
    wall: float
    data: Mapping[str, Any] = field(default_factory=dict)


Observer = Callable[[Observation], None]
