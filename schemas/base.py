"""Base models, bounded text types and size limits of all wire messages."""

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

WIRE_VERSION: Final = 1

# Bytes of a payload.
MAX_POSTURE_BYTES: Final = 64 * 1024
MAX_PACKET_BYTES: Final = MAX_POSTURE_BYTES + 8 * 1024  # of an MQTT packet: the largest payload, topic, properties
MAX_SIGNED_BYTES: Final = MAX_POSTURE_BYTES * 3 // 4 - 1024  # of a report that fits MAX_POSTURE_BYTES in its envelope
MAX_KEY_TEXT: Final = 2048  # of a public key in base64
MAX_STATUS_BYTES: Final = 4 * 1024
MAX_EVENT_BYTES: Final = 16 * 1024
MAX_RESULT_BYTES: Final = 16 * 1024
MAX_COMMAND_BYTES: Final = 32 * 1024
MAX_RECEIPT_BYTES: Final = 4 * 1024
MAX_RENEW_BYTES: Final = 16 * 1024
MAX_CERTIFICATE_BYTES: Final = 48 * 1024

# Characters of a text field.
MAX_DEVICE_ID: Final = 64
MAX_WORD: Final = 64
MAX_NAME: Final = 256
MAX_TEXT: Final = 1024

MAX_GAPS: Final = 32  # of a section
MAX_PARTIAL_LISTS: Final = 16  # of a section

MAX_COUNTER: Final = 2**53 - 1  # exact in every JSON parser

# 1 to 64 characters; excludes "." and "..", which would change the path of an API call.
DEVICE_ID_PATTERN: Final = (
    r"^(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}|\.[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}|\.\.[A-Za-z0-9._-]{1,62})$"
)
# Control characters would reach operators' terminals and logs; senders replace them (see `clean_text`).
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"


_FIELD_NAME: Final = r"^[a-z][a-z0-9_]{0,63}$"


class WireModel(BaseModel):
    """An immutable message; unknown fields, which a newer peer may add, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=False)


class StrictWireModel(BaseModel):
    """An immutable message that rejects unknown fields, because they could change its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _rfc3339(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


DeviceId = Annotated[str, StringConstraints(pattern=DEVICE_ID_PATTERN)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Keyword = Annotated[str, StringConstraints(min_length=1, max_length=MAX_WORD, pattern=r"^[A-Za-z0-9_.:+~@/-]+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=_PRINTABLE)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=_PRINTABLE)]
Counter = Annotated[int, Field(ge=0, le=MAX_COUNTER, strict=True)]
Timestamp = Annotated[AwareDatetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]


class Unavailable(WireModel):
    """A report section without facts, and the reason."""

    state: Literal["unknown", "notapplicable"]
    reason: Annotated[Text, Field(min_length=1)]


class Gap(WireModel):
    """What the device did not read or did not understand, and the field of its section that is therefore not known.

    `source` is the file, line or program. Agents before the first release sent texts `fact: reason`, in some
    sections as `problems`.
    """

    fact: Annotated[str, StringConstraints(pattern=_FIELD_NAME)]
    reason: Annotated[Text, Field(min_length=1)]
    source: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        fact, _, reason = value.partition(": ")
        is_named = re.match(_FIELD_NAME, fact) is not None and reason
        return {"fact": fact, "reason": reason} if is_named else {"fact": "section", "reason": value}


class CollectedSection(WireModel):
    """A report section that was read, completely or with gaps.

    A field with a gap has no value, so that a peer that ignores `gaps` finds it missing. Where the field is a list,
    `partial` has the entries that were read.
    """

    state: Literal["ok"] = "ok"
    gaps: Annotated[tuple[Gap, ...], Field(max_length=MAX_GAPS, fail_fast=True)] = Field(
        default=(), validation_alias=AliasChoices("gaps", "problems")
    )
    partial: Annotated[dict[Keyword, list[JsonValue]], Field(max_length=MAX_PARTIAL_LISTS)] | None = None


def shortened(text: str, most: int) -> str:
    """Returns a text of about `most` characters at most: of a longer one the beginning and the end."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters left out ... {text[-half:]}"


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """Makes a text fit a bounded field: replaces control characters with spaces and cuts at `limit` characters."""
    return "".join(c if c.isprintable() else " " for c in text[:limit])
