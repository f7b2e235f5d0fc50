"""Decodes the messages of devices: bounded and validated, or rejected with a reason for the device."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from controller.ports.messages import IncomingMessage
from schemas.base import (
    MAX_EVENT_BYTES,
    MAX_POSTURE_BYTES,
    MAX_RENEW_BYTES,
    MAX_RESULT_BYTES,
    MAX_STATUS_BYTES,
    WIRE_VERSION,
    clean_text,
)
from schemas.commands import CommandResult
from schemas.enrolment import RenewRequest
from schemas.events import DeviceEvent, RejectReason, Status
from schemas.posture import REPORT, DeltaReport, FullReport, Heartbeat
from schemas.topics import TopicError, UpChannel, UpTopic, parse_up

MAX_PAYLOAD: Final = {
    UpChannel.POSTURE: MAX_POSTURE_BYTES,
    UpChannel.STATUS: MAX_STATUS_BYTES,
    UpChannel.EVENT: MAX_EVENT_BYTES,
    UpChannel.RESULT: MAX_RESULT_BYTES,
    UpChannel.RENEW: MAX_RENEW_BYTES,
}
_MODELS: Final[dict[UpChannel, type[BaseModel]]] = {
    UpChannel.STATUS: Status,
    UpChannel.EVENT: DeviceEvent,
    UpChannel.RESULT: CommandResult,
    UpChannel.RENEW: RenewRequest,
}
_MAX_DETAIL: Final = 300  # characters of an explanation


Deduplicate = Callable[[str, bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class DecodedMessage:
    """A valid message; `same`: a full report whose sections equal those of the last one, and are left out here."""

    device_id: str
    body: FullReport | DeltaReport | Heartbeat | Status | DeviceEvent | CommandResult | RenewRequest
    same: bool = False


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A message that is not valid; `device_id` is empty if the topic names no device."""

    device_id: str
    reason: RejectReason
    detail: str
    seq: int | None = None


def _no_deduplication(_device_id: str, _payload: bytes) -> None:
    return None


def decode(message: IncomingMessage, deduplicate: Deduplicate = _no_deduplication) -> DecodedMessage | RejectedMessage:
    """Decodes one message; nothing that a device sends makes it raise.

    `deduplicate` returns a report without its sections if those are known already.
    """
    try:
        topic = parse_up(message.topic)
    except TopicError as e:
        return RejectedMessage("", RejectReason.UNKNOWN_TOPIC, str(e))
    limit = MAX_PAYLOAD[topic.channel]
    size = len(message.payload)
    if size > limit:
        return RejectedMessage(topic.device_id, RejectReason.PAYLOAD_TOO_LARGE, f"{size} > {limit} bytes")
    if message.retain and topic.channel is not UpChannel.STATUS:
        return RejectedMessage(
            topic.device_id, RejectReason.INVALID, "retained messages are not accepted: publish without retain"
        )
    deduplicated = deduplicate(topic.device_id, message.payload) if topic.channel is UpChannel.POSTURE else None
    try:
        body = _read(topic, message.payload if deduplicated is None else deduplicated)
    except ValidationError as e:
        return _validation_rejection(topic.device_id, message.payload, e)
    claimed = getattr(body, "device_id", topic.device_id)
    if claimed != topic.device_id:
        seq = getattr(body, "seq", None)
        return RejectedMessage(
            topic.device_id, RejectReason.WRONG_DEVICE, "payload and topic name different devices", seq
        )
    return DecodedMessage(topic.device_id, body, same=deduplicated is not None)


def _read(topic: UpTopic, payload: bytes) -> Any:
    if topic.channel is UpChannel.POSTURE:
        return REPORT.validate_json(payload)
    return _MODELS[topic.channel].model_validate_json(payload)


def _validation_rejection(device_id: str, payload: bytes, error: ValidationError) -> RejectedMessage:
    """Explains the most helpful of the errors."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return RejectedMessage(device_id, RejectReason.MALFORMED, clean_text(first["msg"], _MAX_DETAIL))
    try:
        raw = json.loads(payload)
    except (ValueError, RecursionError):
        return RejectedMessage(device_id, RejectReason.MALFORMED, "not JSON")
    if not isinstance(raw, dict):
        return RejectedMessage(device_id, RejectReason.MALFORMED, "not a JSON object")
    seq = raw.get("seq")
    seq = seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq <= 2**53 - 1 else None
    if raw.get("v") != WIRE_VERSION or isinstance(raw.get("v"), bool):
        return RejectedMessage(
            device_id, RejectReason.UNSUPPORTED_VERSION, f"this controller speaks version {WIRE_VERSION}", seq
        )
    if first["type"] in ("union_tag_invalid", "union_tag_not_found") and not first["loc"]:
        return RejectedMessage(device_id, RejectReason.UNKNOWN_KIND, "kind is full, delta or heartbeat", seq)
    place = ".".join(str(part) for part in first["loc"])
    return RejectedMessage(device_id, RejectReason.INVALID, clean_text(f"{place}: {first['msg']}", _MAX_DETAIL), seq)
