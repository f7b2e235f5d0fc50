"""Opens signed reports before anything else reads them, and refuses those that are not what they should be.

A report without a signature passes by here at the cost of one comparison, unless its device or its class has to sign.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from controller.domain.containment.report_signatures import ReplayWindow, age_rejection_reason
from controller.domain.events import SignatureRequirementLifted
from controller.ports.device_keys import DeviceKeys
from controller.ports.messages import IncomingMessage
from controller.service.device_cache import DeviceCache
from controller.service.fleet_state import FleetState
from controller.service.ingest.decoding import RejectedMessage
from controller.service.ingest.keyring import DeviceKeyring
from schemas.base import DEVICE_ID_PATTERN, Timestamp, WireModel
from schemas.events import RejectReason
from schemas.report_signing import ENVELOPE_START, MAX_KEY_BYTES, UnverifiedReport, is_signed_by, parse_signed_report
from schemas.signing import SignatureError
from schemas.topics import TopicError, UpChannel, parse_up

EVERY_CLASS: Final = "*"
_OFFER: Final = b'"signing_key":"'


class _ReportHeader(WireModel):
    """The fields of a signed report that are checked before it is processed."""

    seq: int
    sent_at: Timestamp
    digest: str


@dataclass(frozen=True, slots=True)
class AdmittedMessage:
    """A message to process; `missing`: sequence numbers before a signed report that never arrived."""

    message: IncomingMessage
    is_signed: bool = False
    missing: int = 0


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """The last report again, after a lost receipt: it is answered, and does not count as contact."""

    device_id: str
    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class SignatureRequirements:
    """`max_age`: seconds between the making of a signed report and its arrival. `must_sign`: classes, or `*`."""

    max_age: float = 3600.0
    must_sign: frozenset[str] = frozenset()


class ReportSignatureVerifier:
    """Verifies each message, on the loop's thread. Replay windows are in memory; the last sequence number is stored."""

    def __init__(self, keys: DeviceKeys, devices: DeviceCache, rules: SignatureRequirements) -> None:
        """`devices` holds those whose messages are verified."""
        self._keys = keys
        self._devices = devices
        self._rules = rules
        self._windows: dict[str, ReplayWindow] = {}  # of devices in memory that signed

    def forget(self, device_id: str) -> None:
        """Goes on from the row of the device: what was admitted last was not stored, or is not in memory any more."""
        self._windows.pop(device_id, None)

    def needs_verification(self, messages: Sequence[IncomingMessage]) -> bool:
        """Whether a message of the batch is signed, or a device must sign."""
        if self._devices.any_signs or self._windows or self._rules.must_sign:
            return True
        return any(message.payload.startswith(ENVELOPE_START) for message in messages)

    def verify(self, message: IncomingMessage, now: float) -> AdmittedMessage | DuplicateReport | RejectedMessage:
        """The message to process at `now` (Unix seconds), or its rejection."""
        try:
            topic = parse_up(message.topic)
        except TopicError:
            return AdmittedMessage(message)
        if topic.channel is not UpChannel.POSTURE:
            return AdmittedMessage(message)
        if message.payload.startswith(ENVELOPE_START):
            return self._check_signed(topic.device_id, message, now)
        return self._check_unsigned(topic.device_id, message)

    def _check_unsigned(self, device_id: str, message: IncomingMessage) -> AdmittedMessage | RejectedMessage:
        device = self._devices.get(device_id)
        classes = self._rules.must_sign
        of_class = EVERY_CLASS in classes or (device is not None and device.device_class in classes)
        if of_class or device_id in self._windows or (device is not None and device.signs):
            why = "its class has to sign reports" if of_class else "it signed reports before"
            return RejectedMessage(device_id, RejectReason.UNSIGNED, f"a report without a signature: {why}")
        return AdmittedMessage(message)

    def _check_signed(
        self, device_id: str, message: IncomingMessage, now: float
    ) -> AdmittedMessage | DuplicateReport | RejectedMessage:
        try:
            sealed = parse_signed_report(message.payload)
        except SignatureError as e:
            return RejectedMessage(device_id, RejectReason.MALFORMED, str(e))
        keys = self._keys.keys_for(device_id)
        if keys is None or sealed.keyid not in keys:
            front = _parse_header(sealed.payload)
            named = _claimed_device_id(front)
            self._keys.request_lookup(device_id, sealed.keyid, _included_key(sealed.payload), named)
            if keys is None:
                text = "the key that signed this is being looked up: send it again"
                return RejectedMessage(device_id, RejectReason.TOO_MANY, text, _sequence_of(front))
            why = self._keys.rejection_reason(device_id, sealed.keyid)
            if named not in ("", device_id):
                why = f"{why}; the report names {named}"
            return RejectedMessage(device_id, RejectReason.BAD_SIGNATURE, why)
        if not is_signed_by(sealed, keys[sealed.keyid]):
            return RejectedMessage(device_id, RejectReason.BAD_SIGNATURE, "the signature does not fit the report")
        return self._check_report(device_id, message, sealed, now)

    def _check_report(
        self, device_id: str, message: IncomingMessage, sealed: UnverifiedReport, now: float
    ) -> AdmittedMessage | DuplicateReport | RejectedMessage:
        try:
            front = _ReportHeader.model_validate_json(sealed.payload)
        except ValidationError:
            return RejectedMessage(device_id, RejectReason.INVALID, "signed, but not a report")
        device = self._devices.get(device_id)
        window = self._windows.get(device_id)
        # Heartbeats are numbered too, and their numbers are in no row; another controller may have got some as well.
        counts_gaps = window is not None and not self._devices.is_shared
        if window is None:
            window = (
                ReplayWindow()
                if device is None or device.report_seq < 0
                else ReplayWindow.starting_at(device.report_seq)
            )
        trouble = window.rejection_reason(front.seq)
        if trouble and device is not None and (front.seq, front.digest) == (device.report_seq, device.digest):
            return DuplicateReport(device_id, front.seq, front.digest)
        if trouble:
            return RejectedMessage(device_id, RejectReason.REPLAYED, trouble, front.seq)
        old = age_rejection_reason(front.sent_at.timestamp(), now, self._rules.max_age)
        if old:
            return RejectedMessage(device_id, RejectReason.TOO_OLD, old, front.seq)
        self._windows[device_id] = window.accept(front.seq)
        self._keys.record_use(device_id, sealed.keyid)
        missing = window.gap_before(front.seq) if counts_gaps else 0
        return AdmittedMessage(replace(message, payload=sealed.payload), is_signed=True, missing=missing)


def _parse_header(payload: bytes) -> dict[str, Any]:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _claimed_device_id(front: Mapping[str, Any]) -> str:
    """The device id that a report claims; empty if it is not valid."""
    name = front.get("device_id")
    return name if isinstance(name, str) and re.fullmatch(DEVICE_ID_PATTERN, name) else ""


def _sequence_of(front: Mapping[str, Any]) -> int | None:
    seq = front.get("seq")
    return seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq <= 2**53 - 1 else None


def _included_key(payload: bytes) -> bytes:
    """The key in a report, which is not trusted yet; empty if there is none."""
    start = payload.find(_OFFER)
    if start < 0:
        return b""
    text = payload[start + len(_OFFER) : start + len(_OFFER) + 2 * MAX_KEY_BYTES].split(b'"', 1)[0]
    try:
        return base64.b64decode(text, validate=True)[:MAX_KEY_BYTES]
    except ValueError:
        return b""


@dataclass(frozen=True, slots=True)
class ReportSigningServices:
    """The keys of devices, and the verifier of reports."""

    keyring: DeviceKeyring
    verifier: ReportSignatureVerifier

    async def run(self) -> None:
        """Until cancelled: looks keys up."""
        await self.keyring.run()

    async def lift_signature_requirement(self, fleet: FleetState, device_id: str, by: str, reason: str) -> None:
        """Deletes the key of a first contact, and accepts reports without a signature again."""
        await fleet.apply_and_commit(device_id, SignatureRequirementLifted(fleet.new_id(), by, reason))
        await self.keyring.forget(device_id)
        self.verifier.forget(device_id)
