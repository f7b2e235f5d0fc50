"""Field types of the API: bounded inputs, and views that pydantic reads from domain objects."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Self

from fastapi import Path, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

from schemas.base import DEVICE_ID_PATTERN, MAX_COUNTER
from schemas.commands import ParamValue
from schemas.durations import duration_text, parse_duration

MAX_PAGE: Final = 1000  # rows
MAX_OFFSET: Final = 1_000_000  # rows
MAX_REASON: Final = 500  # characters
MAX_WORDS: Final = 200  # characters of a filter
# The first character is visible: a reason of blanks is none.
_TOLD: Final = r"^[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$"
_FILTER: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"
DURATION_PATTERN: Final = r"^[0-9]{1,8}[smhd]$"


class _Overlay:
    """An object with some attributes added or replaced."""

    def __init__(self, source: object, more: Mapping[str, object]) -> None:
        self._source = source
        self._more = more

    def __getattr__(self, name: str) -> object:
        return self._more[name] if name in self._more else getattr(self._source, name)


class View(BaseModel):
    """Part of a response. Fields are read from the attributes of the same name, or of their `validation_alias`."""

    model_config = ConfigDict(frozen=True, from_attributes=True, validate_by_name=True)

    @classmethod
    def of(cls, source: object, **more: object) -> Self:
        """Reads each field from `more`, else from an attribute of `source`."""
        return cls.model_validate(_Overlay(source, more) if more else source)


class Body(BaseModel):
    """Body of a request. An unknown field is refused: it could be part of a decision that is not carried out."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def to_datetime(value: float | datetime) -> datetime:
    """Returns Unix seconds as a time in UTC."""
    return value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)


def _none_if_unset(value: float | None) -> float | None:
    return None if not value or math.isinf(value) else value


def rfc3339(value: datetime) -> str:
    """Returns a time in UTC with milliseconds, ending in Z."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _checked(value: str) -> str:
    parse_duration(value)
    return value


# Times are Unix seconds in the domain.
UtcTimestamp = Annotated[
    datetime, BeforeValidator(to_datetime), PlainSerializer(rfc3339, return_type=str, when_used="json")
]
# None, 0 and infinity are null.
OptionalTimestamp = Annotated[UtcTimestamp | None, BeforeValidator(_none_if_unset)]
SecondsAsText = Annotated[str, BeforeValidator(duration_text)]
Params = Annotated[dict[str, ParamValue], BeforeValidator(dict)]  # from pairs
ReasonText = Annotated[str, StringConstraints(max_length=MAX_REASON, pattern=_TOLD)]
DurationText = Annotated[str, StringConstraints(pattern=DURATION_PATTERN), AfterValidator(_checked)]
TokenName = Annotated[str, StringConstraints(pattern=DEVICE_ID_PATTERN)]  # excludes "." and ".." too
# What an MQTT user is called: anything visible, bounded; what cannot be acted on is refused where it is acted on.
MqttUserName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_FILTER)]
DeviceIdPath = Annotated[str, Path(pattern=DEVICE_ID_PATTERN, description="MQTT client id of the device")]
DeviceIdFilter = Annotated[str | None, Query(pattern=DEVICE_ID_PATTERN)]
TextFilter = Annotated[str | None, Query(max_length=MAX_WORDS, pattern=_FILTER)]
PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
# `after` and `next` hold the key of a row, so that rows that come or go meanwhile move no other row out of a page.
PageKey = Annotated[str | None, Query(max_length=MAX_WORDS, pattern=_FILTER, description="`next` of the page before")]
NextKey = Annotated[str | None, Field(description="`after` of the next page; null on the last one")]
PageOffset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]
SequenceQuery = Annotated[int, Query(ge=0, le=MAX_COUNTER)]


class UnreadNodeView(View):
    """A running node that could not be read; `node` is empty where the broker does not say which nodes run."""

    node: str
    reason: str


def _unread(nodes: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"node": node, "reason": reason} for node, reason in nodes]


UnreadNodes = Annotated[tuple[UnreadNodeView, ...], BeforeValidator(_unread)]
