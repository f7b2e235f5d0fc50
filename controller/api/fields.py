"""The bounded types of what operators send, and the one way that times leave."""

import math
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, StringConstraints

from schemas.base import DEVICE_ID_PATTERN, MAX_COUNTER
from schemas.durations import parse_duration

MAX_PAGE: Final = 1000  # rows
MAX_OFFSET: Final = 1_000_000  # rows
MAX_REASON: Final = 500  # characters
MAX_WORDS: Final = 200  # characters of a filter
# The first character is visible: a reason of blanks is none.
_TOLD: Final = r"^[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$"
_FILTER: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"
DURATION_PATTERN: Final = r"^[0-9]{1,8}[smhd]$"


class View(BaseModel):
    """What leaves."""

    model_config = ConfigDict(frozen=True)


class Body(BaseModel):
    """What comes in: a field that is not known here could be a decision that is not carried out."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _checked(value: str) -> str:
    parse_duration(value)
    return value


UtcTimestamp = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
ReasonText = Annotated[str, StringConstraints(max_length=MAX_REASON, pattern=_TOLD)]
DurationText = Annotated[str, StringConstraints(pattern=DURATION_PATTERN), AfterValidator(_checked)]
TokenName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
# What an MQTT user is called: anything visible, bounded; what cannot be acted on is refused where it is acted on.
MqttUserName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_FILTER)]
DeviceIdPath = Annotated[str, Path(pattern=DEVICE_ID_PATTERN, description="MQTT client id of the device")]
DeviceIdFilter = Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN)]
TextFilter = Annotated[str | None, Query(max_length=MAX_WORDS, pattern=_FILTER)]
PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
PageOffset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]
SequenceQuery = Annotated[int, Query(ge=0, le=MAX_COUNTER)]


def moment(seconds: float | None) -> datetime | None:
    """Unix seconds as a time; `None` for none and for for ever."""
    return None if seconds is None or math.isinf(seconds) else datetime.fromtimestamp(seconds, UTC)


def at(seconds: float) -> datetime:
    """Unix seconds as a time."""
    return datetime.fromtimestamp(seconds, UTC)
