"""What a zone's limits mean for a session that queues many messages, and the zone that a controller needs. Pure.

EMQX ends the connection or session whose process outgrows `force_shutdown.max_heap_size`, with everything queued in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# Measured on 5.8.9: a queue of about 17,500 messages reached 32 MB. The margin covers versions that count more of each
# message in the heap.
HEAP_PER_MESSAGE: Final = 2_400  # bytes, without the payload
REPORT_BYTES: Final = 2_048  # of a usual report, by which a queue's memory is estimated
QUEUE: Final = 100_000  # messages that wait for an absent controller
ENOUGH_QUEUE: Final = 10_000  # messages with which the audit is content
GLOBAL_ZONE: Final = "default"
_MEGABYTE: Final = 1024**2
_SIZE: Final = re.compile(r"(\d{1,15})(b|kb|mb|gb)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1, "kb": 1024, "mb": _MEGABYTE, "gb": 1024**3}


def heap_bytes(messages: int, message_bytes: int) -> int:
    """Returns the `max_heap_size` in bytes that a queue of so many messages of this size needs: a power of two MB."""
    size = _MEGABYTE
    while size <= messages * (HEAP_PER_MESSAGE + message_bytes):
        size *= 2
    return size


def messages_in_heap(max_heap_bytes: int, message_bytes: int) -> int:
    """Returns how many messages of this size a session queues safely below the limit."""
    return max_heap_bytes // (HEAP_PER_MESSAGE + message_bytes)


@dataclass(frozen=True, slots=True)
class ZoneLimits:
    """The limits of one zone; `max_queue` and `max_heap` are 0 where there is no limit."""

    max_inflight: int
    max_queue: int  # messages
    max_heap: int  # bytes
    session_expiry: str  # a duration, as EMQX writes it

    @property
    def safe_queue(self) -> int:
        """Messages of a usual report's size that fit into the heap; 0: any number."""
        return messages_in_heap(self.max_heap, REPORT_BYTES) if self.max_heap else 0

    @property
    def outgrows_heap(self) -> bool:
        """Whether the queue may grow until EMQX ends the session."""
        return bool(self.max_heap) and (not self.max_queue or self.max_queue > self.safe_queue)


def zone_limits(zone: Mapping[str, Any]) -> ZoneLimits:
    """Reads the sections `mqtt` and `force_shutdown` of a zone.

    Raises:
        KeyError, TypeError, ValueError: not the sections of a zone.
    """
    mqtt, shutdown = zone["mqtt"], zone["force_shutdown"]
    queue = mqtt["max_mqueue_len"]
    return ZoneLimits(
        max_inflight=int(mqtt["max_inflight"]),
        max_queue=0 if queue in ("infinity", "disabled") else int(queue),
        max_heap=_bytes(shutdown["max_heap_size"]) if shutdown["enable"] in (True, "true") else 0,
        session_expiry=str(mqtt["session_expiry_interval"]),
    )


def controller_zone(receive_maximum: int, queue: int = QUEUE) -> dict[str, str]:
    """The keys of a zone for the controller's session, below `zones.cordon`, with their values."""
    return {
        "mqtt.max_inflight": str(receive_maximum),
        "mqtt.max_mqueue_len": str(queue),
        "mqtt.session_expiry_interval": "2h",
        "force_shutdown.max_heap_size": f"{heap_bytes(queue, REPORT_BYTES) // _MEGABYTE}MB",
        "force_shutdown.max_mailbox_size": str(queue),
    }


def _bytes(value: object) -> int:
    found = _SIZE.fullmatch(str(value))
    if found is None:
        raise ValueError(f"not a size: {value!r}")
    return int(found[1]) * _UNITS[(found[2] or "").lower()]
