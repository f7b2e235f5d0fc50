"""Builds and parses every topic of the wire protocol; no other file contains topic text.

The segments are fixed (`cordon/v1/{device_id}/{direction}/{channel}`): one wildcard covers any device.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from schemas.base import DEVICE_ID_PATTERN

_ROOT: Final = "cordon/v1"
_SEGMENTS: Final = 5
MAX_CACHED: Final = 16_384  # parsed topics; a device uses the same few for every message
_DEVICE_ID: Final = re.compile(DEVICE_ID_PATTERN)


class UpChannel(StrEnum):
    """Channels that a device publishes to."""

    POSTURE = "posture"
    STATUS = "status"
    EVENT = "event"
    RESULT = "result"
    RENEW = "renew"


class DownChannel(StrEnum):
    """Channels that a device subscribes to."""

    COMMAND = "command"
    RECEIPT = "receipt"
    CERTIFICATE = "certificate"


class TopicError(ValueError):
    """A topic outside the protocol."""


@dataclass(frozen=True, slots=True)
class UpTopic:
    """A parsed topic of a device."""

    device_id: str
    channel: UpChannel


_CHANNELS: Final = {channel.value: channel for channel in UpChannel}

# Topic filters.
ALL_UP: Final = f"{_ROOT}/+/up/+"  # the controller's subscription
SHARE_GROUP: Final = "cordon"  # of several controllers: each message goes to one of them
SHARED_UP: Final = f"$share/{SHARE_GROUP}/{ALL_UP}"
ALL_DOWN: Final = f"{_ROOT}/+/down/+"  # what the controller may publish
ALL_TOPICS: Final = f"{_ROOT}/#"
# Connections and disconnections as EMQX publishes them (QoS 0, not retained).
PRESENCE: Final = "$SYS/brokers/+/clients/+/+"
PRESENCE_PREFIX: Final = "$SYS/"


def up(device_id: str, channel: UpChannel) -> str:
    """Returns the topic that a device publishes `channel` to."""
    return f"{_ROOT}/{device_id}/up/{channel}"


def down(device_id: str, channel: DownChannel) -> str:
    """Returns the topic that a device receives `channel` on; `+` as the id makes it a filter for every device."""
    return f"{_ROOT}/{device_id}/down/{channel}"


def up_branch(device_id: str) -> str:
    """Returns the filter of all topics that a device may publish to; `${clientid}` makes it a rule for every client."""
    return f"{_ROOT}/{device_id}/up/#"


def down_branch(device_id: str) -> str:
    """Returns the filter of all topics that a device may subscribe to; `${clientid}` as in `up_branch`."""
    return f"{_ROOT}/{device_id}/down/#"


@lru_cache(maxsize=MAX_CACHED)
def parse_up(topic: str) -> UpTopic:
    """Parses a topic that a device published to.

    Raises:
        TopicError: another topic, an unknown channel, or an invalid device id.
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
    """Returns the client id in a presence topic, and whether the client connected (or else disconnected).

    Raises:
        TopicError: not a topic of `PRESENCE`, or the client id is not a valid device id.
    """
    parts = topic.split("/")
    if len(parts) != 6 or (parts[0], parts[1], parts[3]) != ("$SYS", "brokers", "clients"):
        raise TopicError("not a presence topic")
    if _DEVICE_ID.fullmatch(parts[4]) is None or parts[5] not in ("connected", "disconnected"):
        raise TopicError("not about a connection of a device")
    return parts[4], parts[5] == "connected"
