"""Messages other than reports and commands: status, events, and the controller's receipts."""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from schemas.base import MAX_COUNTER, Counter, DeviceId, Digest, Keyword, StrictWireModel, Text, Timestamp, WireModel
from schemas.topics import UpChannel

MAX_FIELDS: Final = 16  # entries of an event's detail
NONCE_DIGITS: Final = 32  # hex digits
Nonce = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{NONCE_DIGITS}}}$")]


class Status(WireModel):
    """The retained status of a device, also its last will; a will has no `at`, it is written in advance."""

    v: Literal[1] = 1
    state: Literal["online", "offline"]
    boot_id: Annotated[Text, Field(max_length=64)] = ""
    at: Timestamp | None = None


class DeviceEvent(WireModel):
    """An occurrence on the device that is sent before the next report."""

    v: Literal[1] = 1
    device_id: DeviceId
    kind: Keyword
    severity: Literal["info", "low", "medium", "high", "critical"] = "info"
    count: Annotated[int, Field(ge=1, le=MAX_COUNTER)] = 1
    summary: Text = ""
    detail: Annotated[dict[Keyword, Text], Field(max_length=MAX_FIELDS, default_factory=dict)]
    at: Timestamp


class ReceiptVerdict(StrEnum):
    """The result of processing a message."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RESEND_FULL = "resend_full"


class RejectReason(StrEnum):
    """Why a message was rejected; an unknown reason of a newer controller is read as `other`."""

    PAYLOAD_TOO_LARGE = "payload_too_large"
    MALFORMED = "malformed"
    INVALID = "invalid"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNKNOWN_KIND = "unknown_kind"
    WRONG_DEVICE = "wrong_device"
    STALE_SEQUENCE = "stale_sequence"
    TOO_MANY = "too_many"
    UNKNOWN_TOPIC = "unknown_topic"
    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"
    REPLAYED = "replayed"
    TOO_OLD = "too_old"
    OTHER = "other"


_REASONS: Final = frozenset(RejectReason)


def _known_reason(value: Any) -> Any:
    return value if not isinstance(value, str) or value in _REASONS else RejectReason.OTHER


class ReportReceipt(StrictWireModel):
    """The controller's answer to a report; the device keeps the report until `accepted`.

    A receipt `about` another channel than `posture` is a rejection and concerns no report. A contained device with a
    supporting agent receives a `nonce`: the next scan's full report repeats it, with `resend_full` immediately.
    """

    v: Literal[1] = 1
    seq: Counter | None
    verdict: ReceiptVerdict
    digest: Digest | None = None
    reason: Annotated[RejectReason, BeforeValidator(_known_reason)] | None = None
    detail: Text | None = None
    about: UpChannel = UpChannel.POSTURE
    nonce: Nonce | None = None

    def to_json(self) -> bytes:
        """Returns the payload without empty fields, and without `about` for a report."""
        exclude = {"about"} if self.about is UpChannel.POSTURE else set()
        if self.nonce is None:
            exclude = exclude | {"nonce"}
        return self.model_dump_json(exclude=exclude, exclude_none=self.verdict is not ReceiptVerdict.REJECTED).encode()


def accepted_json(seq: int, digest: str) -> bytes:
    """Returns `ReportReceipt.to_json` of an accepted report, faster, for validated values: every report gets one."""
    return b'{"v":1,"seq":%d,"verdict":"accepted","digest":"%b"}' % (seq, digest.encode())
