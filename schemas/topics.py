"""Builds and reads every topic of the wire protocol: no other file holds topic text.

Positions are fixed (`cordon/v1/{device_id}/{direction}/{channel}`): one wildcard covers any device, reading is a split.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from schemas.base import DEVICE_ID_PATTERN

_ROOT: Final = "cordon/v1"
_SEGMENTS: Final = 5
MAX_REMEMBERED: Final = 16_384  # topics; a device says the same one again and again
_DEVICE_ID: Final = re.compile(DEVICE_ID_PATTERN)


class UpChannel(StrEnum):
    """What a device publishes."""

    POSTURE = "posture"
    STATUS = "status"
    EVENT = "event"
    RESULT = "result"
    RENEW = "renew"


class DownChannel(StrEnum):
    """What a device receives."""

    COMMAND = "command"
    RECEIPT = "receipt"
    CERTIFICATE = "certificate"


class TopicError(ValueError):
    """A topic outside the protocol."""


@dataclass(frozen=True, slots=True)
class UpTopic:
    """A device's topic, taken apart."""

    device_id: str
    channel: UpChannel


_CHANNELS: Final = {channel.value: channel for channel in UpChannel}

# The controller's own subscription: every device, every upward channel.
ALL_UP: Final = f"{_ROOT}/+/up/+"
# Who came and went, as the broker itself tells it (EMQX; QoS 0, not retained).
PRESENCE: Final = "$SYS/brokers/+/clients/+/+"
PRESENCE_PREFIX: Final = "$SYS/"


def up(device_id: str, channel: UpChannel) -> str:
    """Where a device publishes on `channel`."""
    return f"{_ROOT}/{device_id}/up/{channel}"


def down(device_id: str, channel: DownChannel) -> str:
    """Where a device hears `channel`."""
    return f"{_ROOT}/{device_id}/down/{channel}"


def up_branch(device_id: str) -> str:
    """The filter of everything that a device may publish to Cordon; `${clientid}` makes it a rule for all."""
    return f"{_ROOT}/{device_id}/up/#"


def down_branch(device_id: str) -> str:
    """The filter of everything that a device may hear from Cordon; `${clientid}` makes it a rule for all."""
    return f"{_ROOT}/{device_id}/down/#"


def everything() -> str:
    """The filter of the whole protocol, to close it to all who have no rule of their own."""
    return f"{_ROOT}/#"


def down_all() -> str:
    """The filter of every downward topic of every device: what the controller may publish."""
    return f"{_ROOT}/+/down/+"


def down_any(channel: DownChannel) -> str:
    """The filter of one downward channel for every device: for tests and for the controller's own checks."""
    return f"{_ROOT}/+/down/{channel}"


@lru_cache(maxsize=MAX_REMEMBERED)
def parse_up(topic: str) -> UpTopic:
    """Take a device's topic apart.

    Raises:
        TopicError: the topic is not one of ours, its channel is unknown, or its device id is not a valid one.
    """
    parts = topic.split("/", _SEGMENTS)
    if len(parts) != _SEGMENTS or parts[0] != "cordon" or parts[1] != "v1" or parts[3] != "up":
        raise TopicError("not a topic of this protocol")
    channel = _CHANNELS.get(parts[4])
    if channel is None:
        raise TopicError("unknown channel")
    if _DEVICE_ID.fullmatch(parts[2]) is None:
        raise TopicError("not a device id")
    return UpTopic(device_id=parts[2], channel=channel)


def parse_presence(topic: str) -> tuple[str, bool]:
    """Of whom the broker speaks, and whether that client came (or else went).

    Raises:
        TopicError: not a topic of `PRESENCE`, or the client is none that could be a device.
    """
    parts = topic.split("/")
    if len(parts) != 6 or (parts[0], parts[1], parts[3]) != ("$SYS", "brokers", "clients"):
        raise TopicError("not a presence topic")
    if _DEVICE_ID.fullmatch(parts[4]) is None or parts[5] not in ("connected", "disconnected"):
        raise TopicError("not about a device that came or went")
    return parts[4], parts[5] == "connected"
