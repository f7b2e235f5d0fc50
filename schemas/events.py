"""What a device tells between reports, and what it hears back: status, events, receipts."""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from schemas.base import MAX_COUNTER, Counter, DeviceId, Digest, Keyword, StrictWireModel, Text, Timestamp, WireModel
from schemas.topics import UpChannel

MAX_FIELDS: Final = 16  # entries of an event's detail
NONCE_DIGITS: Final = 32  # hex digits
Nonce = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{NONCE_DIGITS}}}$")]


class Status(WireModel):
    """Retained, and the last will: whether the device is there.

    `at` is missing in a will, which is written before it happens.
    """

    v: Literal[1] = 1
    state: Literal["online", "offline"]
    boot_id: Annotated[Text, Field(max_length=64)] = ""
    at: Timestamp | None = None


class DeviceEvent(WireModel):
    """Something that happened on the device and does not wait for the next report."""

    v: Literal[1] = 1
    device_id: DeviceId
    kind: Keyword
    severity: Literal["info", "low", "medium", "high", "critical"] = "info"
    count: Annotated[int, Field(ge=1, le=MAX_COUNTER)] = 1
    summary: Text = ""
    detail: Annotated[dict[Keyword, Text], Field(max_length=MAX_FIELDS, default_factory=dict)]
    at: Timestamp


class ReceiptVerdict(StrEnum):
    """What the controller did with a message."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RESEND_FULL = "resend_full"


class RejectReason(StrEnum):
    """Why a message was refused, in a word that a device can act on; a newer word reads as `other`."""

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
    """The controller's own word on a report: only `accepted` lets the device forget it.

    What is `about` another channel than `posture` is a rejection, and says nothing of any report.
    `nonce`: for a contained device whose agent knows of it; the next scan's full report answers it, and with
    `resend_full` that scan is wanted now.
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
        """What is sent: without what is not said, and without `about` where it is a report."""
        common = {"about"} if self.about is UpChannel.POSTURE else set()
        if self.nonce is None:
            common = common | {"nonce"}
        return self.model_dump_json(exclude=common, exclude_none=self.verdict is not ReceiptVerdict.REJECTED).encode()


def accepted_json(seq: int, digest: str) -> bytes:
    """`ReportReceipt.to_json` of an accepted report, as one is sent for every report: both values were validated."""
    return b'{"v":1,"seq":%d,"verdict":"accepted","digest":"%b"}' % (seq, digest.encode())
