"""What every wire message shares: one base model, the bounded text types, and the limits with their units."""

from datetime import datetime
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints

WIRE_VERSION: Final = 1

# Bytes of a whole payload. A report has to fit into 64 KiB; everything else a device says is small.
MAX_POSTURE_BYTES: Final = 64 * 1024
MAX_SIGNED_BYTES: Final = MAX_POSTURE_BYTES * 3 // 4 - 1024  # of a report that still fits when it is signed and wrapped
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

# Sequence numbers and counters stay exact in every JSON reader.
MAX_COUNTER: Final = 2**53 - 1

# 1 to 64 characters, but neither "." nor "..", which are ways up in the path of an API call.
DEVICE_ID_PATTERN: Final = (
    r"^(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}|\.[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}|\.\.[A-Za-z0-9._-]{1,62})$"
)
# Control characters would reach operators' terminals and logs; a sender cleans them out (see `clean_text`).
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"


class WireModel(BaseModel):
    """A message from or to a device: immutable, and tolerant of fields that a newer peer added."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=False)


class StrictWireModel(BaseModel):
    """A message whose unknown fields could change what it means, so they are refused."""

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


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """Make any text fit a bounded field: control characters become spaces, the rest is cut at `limit` characters."""
    return "".join(c if c.isprintable() else " " for c in text[:limit])
