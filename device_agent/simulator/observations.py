"""What is seen at a simulated device, with the time it was seen: the raw material of demonstrations and benchmarks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ObservationKind(StrEnum):
    """What can be seen, and the `data` it comes with."""

    CONNECTED = "connected"
    """`mqtt` ("5" or "3.1.1"), `session_present`, `server`."""
    REFUSED = "refused"
    """The broker answered CONNECT with no: `code`, `reason`."""
    UNREACHABLE = "unreachable"
    """No connection, or no answer to CONNECT: `reason`."""
    DISCONNECTED = "disconnected"
    """`code` of the broker's DISCONNECT, None when the socket just closed; `reason`."""
    REPORT_SENT = "report_sent"
    """`seq`, `report` ("full" or "heartbeat"), `digest`, `attempt`."""
    RECEIPT = "receipt"
    """`seq`, `verdict`, `reason`."""
    COMMAND_TAKEN = "command_taken"
    """`command_id`, `action`, `params`."""
    COMMAND_REJECTED = "command_rejected"
    """`command_id` (None when nobody we trust signed it), `reason`."""
    COMMAND_DONE = "command_done"
    """`command_id`, `action`, `state`, `reason`."""
    PUBLISHED = "published"
    """A message of the fleet's own work was handed over: `topic`, `n`."""
    PUBACK = "puback"
    """The broker answered a message: `topic`, `code`, and what was known of it (`seq`, `n`)."""
    SUBACK = "suback"
    """The broker answered a subscription: `topic`, `code`."""
    MESSAGE = "message"
    """A message outside Cordon's branch arrived: `topic`, `bytes`."""
    CHANGED = "changed"
    """The posture changed: `digest`."""
    CHANGE_REFUSED = "change_refused"
    """A change that was asked for makes no posture: `reason`."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing seen at one device; `monotonic` as time.monotonic(), `wall` as time.time(), both in seconds."""

    device_id: str
    seen: ObservationKind
    monotonic: float
    wall: float
    data: Mapping[str, Any] = field(default_factory=dict)


Observer = Callable[[Observation], None]
