"""The hot path: a batch of messages is decided and committed, then acknowledged in order and answered by receipts."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.domain import events as ev
from controller.domain.device import Device
from controller.domain.effects import SendReceipt
from controller.domain.policy.event_rules import evaluate_event, event_facts
from controller.domain.policy.facts import DeviceFacts
from controller.domain.policy.model import PolicySet
from controller.domain.reports import is_no_change_heartbeat, is_repeated_report
from controller.ports.log import Log
from controller.ports.messages import IncomingMessage, Messages
from controller.ports.store import DeadLetter, StoredReport
from controller.service.fleet_state import FleetState, OwnClientError, TooManyDevicesError
from controller.service.ingest.decoding import DecodedMessage, RejectedMessage, decode
from controller.service.ingest.deduplication import ReportDeduplicator
from controller.service.ingest.delta import merge
from controller.service.ingest.rate_limit import RateLimiter, device_ids
from controller.service.ingest.receipts import evidence_of, parse_full_report, receipt_json
from controller.service.ingest.rejections import RejectionLog
from controller.service.ingest.signatures import AdmittedMessage, DuplicateReport, ReportSignatureVerifier
from controller.service.unit_of_work import UnitOfWork
from schemas.commands import CommandResult
from schemas.enrolment import RenewRequest
from schemas.events import DeviceEvent, ReceiptVerdict, RejectReason, Status
from schemas.posture import DeltaReport, FullReport, Heartbeat, sections_of
from schemas.topics import PRESENCE_PREFIX, DownChannel, down, parse_up

MAX_BATCH: Final = 512  # messages
BATCHES_AHEAD: Final = 1  # decided batches that wait while one is written and another is decided
MAX_DEAD_PAYLOAD: Final = 2048  # bytes of a rejected message that are stored
MAX_HEARTBEAT: Final = 1024  # bytes; a longer message is a report, which needs no stored one
RECEIPT_EXPIRY: Final = 600  # seconds; by then the device has sent its message again
MAX_ERROR: Final = 1024  # characters of an error in the log; it may quote the message
HELD_PAUSE: Final = 0.5  # seconds without messages after which deferred statuses are processed

_DELTA: Final = b'"delta"'


@dataclass(frozen=True, slots=True)
class _Delivery:
    message: IncomingMessage
    content: DecodedMessage | RejectedMessage
    received_at: float  # Unix seconds
    stored: Mapping[str, bytes]
    signed: AdmittedMessage | None = None


@dataclass(frozen=True, slots=True)
class _Decided:
    """A batch whose commit is enqueued; `committing` is awaited before it is acknowledged."""

    messages: Sequence[IncomingMessage]
    batch: UnitOfWork
    committing: Awaitable[None] | None


class Ingest:
    """Processes the messages of devices.

    `counts`: received, confirmed (committed and acknowledged), reports (full ones), deltas, heartbeats, signed,
    missing (sequence numbers of signed reports), refused:<reason>, unanswered (rejections without a receipt),
    receipts_not_sent.
    """

    def __init__(
        self,
        messages: Messages,
        fleet: FleetState,
        log: Log,
        rate_limiter: RateLimiter | None = None,
        verifier: ReportSignatureVerifier | None = None,
        on_renewal: Callable[[str, RenewRequest], None] | None = None,
        on_presence: Callable[[Sequence[IncomingMessage]], None] | None = None,
    ) -> None:
        """`on_renewal` answers requests for a certificate later; `on_presence` gets the broker's presence messages."""
        self._messages = messages
        self._fleet = fleet
        self._log = log
        self._rate_limiter = rate_limiter or RateLimiter()
        self._deduplicator = ReportDeduplicator()
        self._verifier = verifier
        self._rejections = RejectionLog()
        self.counts: Counter[str] = Counter()
        self._on_renewal = on_renewal
        self._on_presence = on_presence
        self._uncommitted: list[Mapping[str, StoredReport]] = []  # of decided batches that are not durable yet

    async def run(self) -> None:
        """Until cancelled: while one batch is committed, the next one is decided."""
        decided: asyncio.Queue[_Decided] = asyncio.Queue(BATCHES_AHEAD)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._decide_all(decided), name="ingest-decide")
            group.create_task(self._confirm_all(decided), name="ingest-confirm")

    async def _decide_all(self, decided: asyncio.Queue[_Decided]) -> None:
        while True:
            await decided.put(await self._decide(await self._receive()))

    async def _confirm_all(self, decided: asyncio.Queue[_Decided]) -> None:
        while True:
            await self._confirm(await decided.get())

    async def _receive(self) -> Sequence[IncomingMessage]:
        if not self._rate_limiter.has_deferred_status:
            return await self._messages.receive(MAX_BATCH)
        try:
            async with asyncio.timeout(HELD_PAUSE):
                return await self._messages.receive(MAX_BATCH)
        except TimeoutError:
            return ()

    async def process_batch(self, messages: Sequence[IncomingMessage]) -> None:
        """Decides, commits, acknowledges and answers one batch, in this order."""
        await self._confirm(await self._decide(messages))

    async def _decide(self, messages: Sequence[IncomingMessage]) -> _Decided:
        clock = self._fleet.clock
        if self._on_presence is None:
            reported = messages
        else:
            reported = [one for one in messages if not one.topic.startswith(PRESENCE_PREFIX)]
            if len(reported) < len(messages):
                self._on_presence([one for one in messages if one.topic.startswith(PRESENCE_PREFIX)])
        admitted, excess = self._rate_limiter.admit(reported, clock.monotonic(), self._is_awaited_result)
        verified = self._verify_signatures(admitted, clock.now())
        stored = await self._stored_reports(admitted)
        # No await from here to `enqueue_commit`: nothing else may change a device in between.
        batch = UnitOfWork()
        now = clock.now()
        offset = now - clock.monotonic()
        for number, message in enumerate(admitted):
            signature = verified.get(number)
            if isinstance(signature, DuplicateReport):
                batch.receipts.append(
                    SendReceipt(signature.device_id, signature.seq, ReceiptVerdict.ACCEPTED, signature.digest)
                )
                continue
            content = signature if isinstance(signature, RejectedMessage) else decode(message, self._deduplicate)
            opened = signature if isinstance(signature, AdmittedMessage) else None
            self._process_message(_Delivery(message, content, message.received_at + offset, stored, opened), now, batch)
        for message, device_id in device_ids(excess):
            self.counts["received"] += 1
            self._reject(message, RejectedMessage(device_id, RejectReason.TOO_MANY, self._rate_limiter.why), now, batch)
        if batch.reports:
            self._uncommitted.append(batch.reports)
        return _Decided(messages, batch, self._fleet.enqueue_commit(batch))

    async def _confirm(self, decided: _Decided) -> None:
        batch = decided.batch
        if decided.committing is not None:
            await decided.committing
        if batch.reports:
            self._uncommitted.remove(batch.reports)
        self._fleet.publish_committed(batch)
        self._messages.acknowledge(decided.messages)
        for receipt in batch.receipts:
            self._send_receipt(receipt)
        self.counts["confirmed"] += len(decided.messages)

    def _verify_signatures(
        self, messages: list[IncomingMessage], now: float
    ) -> dict[int, AdmittedMessage | DuplicateReport | RejectedMessage]:
        """By index, the result for messages that are signed or must be; each envelope is replaced by its report."""
        found: dict[int, AdmittedMessage | DuplicateReport | RejectedMessage] = {}
        if self._verifier is None or not self._verifier.needs_verification(messages):
            return found
        for number, message in enumerate(messages):
            opened = self._verifier.verify(message, now)
            if not isinstance(opened, AdmittedMessage):
                found[number] = opened
            elif opened.is_signed:
                found[number], messages[number] = opened, opened.message
                self.counts["signed"] += 1
                self.counts["missing"] += opened.missing
        return found

    def _is_awaited_result(self, device_id: str) -> bool:
        device = self._fleet.get(device_id)
        return device is not None and bool(device.commands)

    def _deduplicate(self, device_id: str, payload: bytes) -> bytes | None:
        device = self._fleet.get(device_id)
        return None if device is None else self._deduplicator.deduplicate(device, self._fleet.policies.version, payload)

    async def _stored_reports(self, messages: Sequence[IncomingMessage]) -> dict[str, bytes]:
        """Stored reports, to evaluate again after a change of policies, or to merge with a delta."""
        fleet = self._fleet
        version = fleet.policies.version
        found: dict[str, bytes] = {}
        for message, device_id in device_ids(messages):
            # Not parsed yet: a report that merely contains the word costs a needless read of the store.
            is_delta = _DELTA in message.payload
            if not is_delta and len(message.payload) > MAX_HEARTBEAT:
                continue
            device = fleet.get(device_id)
            if device is None or not device.digest or device_id in found:
                continue
            if not is_delta and device.judged_by == version:
                continue
            report = self._uncommitted_report(device_id) or await fleet.store.report(device_id)
            if report is not None:
                found[device_id] = report
        return found

    def _uncommitted_report(self, device_id: str) -> bytes | None:
        """The last report that is decided and not committed yet."""
        return next((reports[device_id].body for reports in reversed(self._uncommitted) if device_id in reports), None)

    def _process_message(self, delivery: _Delivery, now: float, batch: UnitOfWork) -> None:
        self.counts["received"] += 1
        content = delivery.content
        if isinstance(content, RejectedMessage):
            self._reject(delivery.message, content, now, batch)
            return
        try:
            self._accept(content, delivery, now, batch)
        except (TooManyDevicesError, OwnClientError) as e:
            reason = RejectReason.WRONG_DEVICE if isinstance(e, OwnClientError) else RejectReason.TOO_MANY
            self._reject(delivery.message, RejectedMessage(content.device_id, reason, str(e)), now, batch)
        except Exception as e:  # noqa: BLE001 - one message must never stop the others
            if self._fleet.budget.admits_line(content.device_id, now):
                failure = {"device": content.device_id, "topic": delivery.message.topic, "error": repr(e)[:MAX_ERROR]}
                self._log("message failed", failure)
            why = RejectedMessage(content.device_id, RejectReason.OTHER, "the controller could not process it")
            self._reject(delivery.message, why, now, batch)

    def _accept(self, content: DecodedMessage, delivery: _Delivery, now: float, batch: UnitOfWork) -> None:
        fleet = self._fleet
        device = fleet.get_or_new(content.device_id, now)
        if self._record_contact(device, content, delivery, batch):
            return
        body = content.body
        if isinstance(body, FullReport):
            self._process_full_report(device, body, content.same, delivery, now, batch)
            return
        if isinstance(body, DeltaReport):
            self._process_delta(device, body, delivery, now, batch)
            return
        event_id = fleet.new_id()
        event: ev.DomainEvent
        match body:
            case Heartbeat() as beat:
                facts = self._facts_of_stored(device, beat, delivery.stored)
                event = ev.HeartbeatReceived(
                    event_id,
                    beat.seq,
                    beat.digest,
                    delivery.received_at,
                    None if facts is None else fleet.evaluator(facts),
                    fleet.policies.version,
                    predicates=None if facts is None else fleet.evaluator.evaluate_predicates(facts),
                    evidence=evidence_of(is_signed=delivery.signed is not None),
                    missing=0 if delivery.signed is None else delivery.signed.missing,
                    may_release=not fleet.budget.is_used_up(device.device_id, now),
                )
            case Status() as status:
                event = ev.StatusChanged(event_id, status.state == "online", status.boot_id)
            case DeviceEvent() as reported:
                event = _event_reported(event_id, reported, device, delivery.received_at, fleet.policies)
            case RenewRequest() as request:
                if self._on_renewal is not None:
                    self._on_renewal(content.device_id, request)
                return
            case CommandResult() as result:
                event = ev.CommandReported(
                    event_id, result.command_id, result.state, result.reason, tuple(result.detail.items())
                )
        fleet.apply(device, event, now, batch)

    def _record_contact(self, device: Device, content: DecodedMessage, delivery: _Delivery, batch: UnitOfWork) -> bool:
        """Handles the usual case: the message changes nothing but the time of contact. False if a step is needed."""
        body = content.body
        if delivery.signed is not None and (delivery.signed.missing or not device.signs):
            return False
        if isinstance(body, FullReport):
            self.counts["reports"] += 1
            if not content.same or not is_repeated_report(device, body.seq, body.boot_id, body.agent):
                return False
        elif isinstance(body, Heartbeat):
            self.counts["heartbeats"] += 1
        else:
            return False
        if not is_no_change_heartbeat(device, body.digest, self._fleet.policies):
            return False
        if isinstance(body, FullReport):
            self._fleet.record_contact(device, delivery.received_at, batch, body.seq)
            batch.receipts.append(SendReceipt(device.device_id, body.seq, ReceiptVerdict.ACCEPTED, body.digest))
        else:
            self._fleet.record_contact(device, delivery.received_at, batch)
        return True

    def _process_delta(
        self, device: Device, delta: DeltaReport, delivery: _Delivery, now: float, batch: UnitOfWork
    ) -> None:
        """Processes the report that results from a delta, or requests a full one."""
        fleet = self._fleet
        self.counts["deltas"] += 1
        is_known = bool(delta.boot_id) and delta.boot_id == device.boot_id
        is_again = delta.seq == device.report_seq and delta.digest == device.digest
        if is_known and (delta.seq < device.report_seq or is_again):
            again = ev.PostureReported(
                fleet.new_id(), delta.seq, delta.digest, delta.boot_id, delta.agent, delivery.received_at, None, ""
            )
            fleet.apply(device, again, now, batch)
            return
        fresh = batch.reports.get(device.device_id)
        stored = delivery.stored.get(device.device_id) if fresh is None else fresh.body
        merged = None
        if stored is not None and device.digest == delta.base:
            merged = merge(stored, delivery.message.payload, delta)
        report = None if merged is None else parse_full_report(merged)
        if merged is None or report is None:
            # As a heartbeat with another digest: a full report is requested.
            fleet.apply(device, ev.HeartbeatReceived(fleet.new_id(), delta.seq, "", delivery.received_at), now, batch)
            return
        whole = replace(delivery, message=replace(delivery.message, payload=merged))
        self._process_full_report(device, report, False, whole, now, batch)

    def _process_full_report(
        self, device: Device, report: FullReport, same: bool, delivery: _Delivery, now: float, batch: UnitOfWork
    ) -> None:
        fleet = self._fleet
        payload = delivery.message.payload
        facts = None if same else fleet.evaluator.facts(report.sections, *_identity_of(device))
        event = ev.PostureReported(
            fleet.new_id(),
            report.seq,
            report.digest,
            report.boot_id,
            report.agent,
            delivery.received_at,
            None if facts is None else fleet.evaluator(facts),
            fleet.policies.version,
            evidence=evidence_of(is_signed=delivery.signed is not None),
            answers=report.answers,
            predicates=None if facts is None else fleet.evaluator.evaluate_predicates(facts),
            receipt=report.receipt,
            missing=0 if delivery.signed is None else delivery.signed.missing,
            may_release=not fleet.budget.is_used_up(device.device_id, now),
        )
        outcome = fleet.apply(device, event, now, batch, payload)
        if not same and any(receipt.verdict is ReceiptVerdict.ACCEPTED for receipt in outcome.receipts):
            self._deduplicator.remember(device, fleet.policies.version, payload)

    def _facts_of_stored(self, device: Device, beat: Heartbeat, stored: Mapping[str, bytes]) -> DeviceFacts | None:
        """The facts of the stored report, if it was evaluated by other policies."""
        fleet = self._fleet
        raw = stored.get(device.device_id)
        if raw is None or device.judged_by == fleet.policies.version or beat.digest != device.digest:
            return None
        return fleet.evaluator.facts(sections_of(raw), *_identity_of(device))

    def _reject(self, message: IncomingMessage, why: RejectedMessage, now: float, batch: UnitOfWork) -> None:
        self.counts[f"refused:{why.reason.value}"] += 1
        limiter, moment = self._rate_limiter, self._fleet.clock.monotonic()
        if not limiter.may_send_receipt(why.device_id, moment):
            self.counts["unanswered"] += 1
            return
        entry = self._rejections.audit_entry(why, now)
        if entry is not None:
            batch.audit.extend((now, one) for one in self._fleet.budget.admit((entry,), now))
        if limiter.may_store_rejection(moment):
            size, payload = len(message.payload), message.payload[:MAX_DEAD_PAYLOAD]
            dead = DeadLetter(now, why.device_id, message.topic[:256], why.reason.value, why.detail, size, payload)
            batch.dead.append(dead)
        if why.device_id:
            about = parse_up(message.topic).channel
            receipt = SendReceipt(why.device_id, why.seq, ReceiptVerdict.REJECTED, None, why.reason, why.detail, about)
            batch.receipts.append(receipt)

    def _send_receipt(self, receipt: SendReceipt) -> None:
        topic = down(receipt.device_id, DownChannel.RECEIPT)
        if not self._messages.publish_nowait(topic, receipt_json(receipt), expiry_seconds=RECEIPT_EXPIRY):
            self.counts["receipts_not_sent"] += 1


def _event_reported(
    event_id: str, reported: DeviceEvent, device: Device, at: float, policies: PolicySet
) -> ev.DeviceEventReported:
    facts = event_facts(reported, device.device_id, device.device_class, device.tags)
    return ev.DeviceEventReported(
        event_id,
        reported.kind,
        reported.severity,
        reported.count,
        reported.summary,
        tuple(reported.detail.items()),
        at,
        evaluate_event(policies.policies, facts),
    )


def _identity_of(device: Device) -> tuple[str, str, tuple[str, ...]]:
    return device.device_id, device.device_class, device.tags
