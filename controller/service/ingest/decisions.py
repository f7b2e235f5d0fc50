"""Decides a batch of messages: each is verified, decoded and stepped, and what follows is collected for one commit."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.domain import events as ev
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, SendReceipt
from controller.domain.policy.event_rules import evaluate_event, event_facts
from controller.domain.policy.facts import DeviceFacts
from controller.domain.policy.model import PolicySet
from controller.domain.reports import is_no_change_heartbeat, is_repeated_report
from controller.ports.log import Log
from controller.ports.messages import IncomingMessage
from controller.ports.store import DeadLetter
from controller.service.fleet_state import FleetState, OwnClientError, TooManyDevicesError
from controller.service.ingest.decoding import DecodedMessage, RejectedMessage, decode
from controller.service.ingest.deduplication import ReportDeduplicator
from controller.service.ingest.delta import merge
from controller.service.ingest.rate_limit import RateLimiter, device_ids
from controller.service.ingest.receipts import evidence_of, parse_full_report
from controller.service.ingest.rejections import RejectionLog
from controller.service.ingest.signatures import AdmittedMessage, DuplicateReport, ReportSignatureVerifier
from controller.service.unit_of_work import UnitOfWork
from schemas.commands import CommandResult
from schemas.enrolment import RenewRequest
from schemas.events import DeviceEvent, ReceiptVerdict, RejectReason, Status
from schemas.posture import DeltaReport, FullReport, Heartbeat, sections_of
from schemas.topics import parse_up

MAX_DEAD_PAYLOAD: Final = 2048  # bytes of a rejected message that are stored
MAX_HEARTBEAT: Final = 1024  # bytes; a longer message is a report, which needs no stored one
MAX_ERROR: Final = 1024  # characters of an error in the log; it may quote the message

_DELTA: Final = b'"delta"'


@dataclass(frozen=True, slots=True)
class Answer:
    """How a rejected message is answered: with a receipt, an audit entry, and a stored copy."""

    is_told: bool
    entry: AuditEntry | None
    is_stored: bool


# What was answered to rejected messages, by number within the batch and reason: limits count each once.
Answers = dict[tuple[int, RejectReason], Answer]


@dataclass(frozen=True, slots=True)
class _Delivery:
    number: int  # within the batch
    message: IncomingMessage
    content: DecodedMessage | RejectedMessage
    received_at: float  # Unix seconds
    stored: Mapping[str, bytes]
    signed: AdmittedMessage | None = None


class BatchDecisions:
    """Decides batches, one after the other. `counts` as of `Ingest`."""

    def __init__(
        self,
        fleet: FleetState,
        log: Log,
        rate_limiter: RateLimiter,
        verifier: ReportSignatureVerifier | None,
        on_renewal: Callable[[str, RenewRequest], None] | None,
        counts: Counter[str],
    ) -> None:
        self.verifier = verifier
        self.counts = counts
        self._fleet = fleet
        self._log = log
        self._rate_limiter = rate_limiter
        self._on_renewal = on_renewal
        self._deduplicator = ReportDeduplicator()
        self._rejections = RejectionLog()
        self._answers: Answers = {}  # of the batch that is being decided
        self._is_again = False
        fleet.cache.on_dropped(self._forget)

    async def decide(
        self,
        admitted: Sequence[IncomingMessage],
        excess: Sequence[IncomingMessage],
        answers: Answers,
        *,
        again: bool = False,
    ) -> UnitOfWork:
        """The decisions about `admitted` messages, and the rejections of those in `excess`; nothing is committed yet.

        `again`: the same batch was decided before, and refused. `answers` are those to rejected messages by then; new
        ones are added.
        """
        fleet, clock = self._fleet, self._fleet.clock
        messages = list(admitted)
        named = list(device_ids(messages))
        ids = {device_id for _, device_id in named if device_id}
        with fleet.cache.keep(ids):
            await fleet.load(ids)
            verified = self._verify_signatures(messages, clock.now())
            stored = await self._stored_reports(
                [(message, device_id) for message, (_, device_id) in zip(messages, named, strict=True)]
            )
            await fleet.load(ids)  # others may have been refused a commit meanwhile
            # No await from here to the commit: nothing else may change a device in between.
            batch, now = UnitOfWork(), clock.now()
            self._answers, self._is_again = answers, again
            offset = now - clock.monotonic()
            for number, message in enumerate(messages):
                signature = verified.get(number)
                if isinstance(signature, DuplicateReport):
                    batch.receipts.append(
                        SendReceipt(signature.device_id, signature.seq, ReceiptVerdict.ACCEPTED, signature.digest)
                    )
                    continue
                content = signature if isinstance(signature, RejectedMessage) else decode(message, self._deduplicate)
                opened = signature if isinstance(signature, AdmittedMessage) else None
                delivery = _Delivery(number, message, content, message.received_at + offset, stored, opened)
                self._process_message(delivery, now, batch)
            fleet.rest_on(ids, batch)
            for number, (message, device_id) in enumerate(device_ids(excess), len(messages)):
                self.counts["received"] += 1
                why = RejectedMessage(device_id, RejectReason.TOO_MANY, self._rate_limiter.why)
                self._reject(number, message, why, now, batch)
            return batch

    def undo(self, messages: Sequence[IncomingMessage]) -> None:
        """Forgets what was remembered of a batch that was refused: it is decided again from the rows."""
        for _, device_id in device_ids(messages):
            self._forget(device_id)

    def _forget(self, device_id: str) -> None:
        self._deduplicator.forget(device_id)
        if self.verifier is not None:
            self.verifier.forget(device_id)

    def _verify_signatures(
        self, messages: list[IncomingMessage], now: float
    ) -> dict[int, AdmittedMessage | DuplicateReport | RejectedMessage]:
        """By index, the result for messages that are signed or must be; each envelope is replaced by its report."""
        found: dict[int, AdmittedMessage | DuplicateReport | RejectedMessage] = {}
        if self.verifier is None or not self.verifier.needs_verification(messages):
            return found
        for number, message in enumerate(messages):
            opened = self.verifier.verify(message, now)
            if not isinstance(opened, AdmittedMessage):
                found[number] = opened
            elif opened.is_signed:
                found[number], messages[number] = opened, opened.message
                self.counts["signed"] += 1
                self.counts["missing"] += opened.missing
        return found

    def _deduplicate(self, device_id: str, payload: bytes) -> bytes | None:
        device = self._fleet.get(device_id)
        return None if device is None else self._deduplicator.deduplicate(device, self._fleet.policies.version, payload)

    async def _stored_reports(self, messages: Sequence[tuple[IncomingMessage, str]]) -> dict[str, bytes]:
        """Stored reports, to evaluate again after a change of policies, or to merge with a delta."""
        fleet = self._fleet
        version = fleet.policies.version
        found: dict[str, bytes] = {}
        for message, device_id in messages:
            # Not parsed yet: a report that merely contains the word costs a needless read of the store.
            is_delta = _DELTA in message.payload
            if not is_delta and len(message.payload) > MAX_HEARTBEAT:
                continue
            device = fleet.cache.peek(device_id)
            if device is None or not device.digest or device_id in found:
                continue
            if not is_delta and device.judged_by == version:
                continue
            report = await fleet.report(device_id)
            if report is not None:
                found[device_id] = report
        return found

    def _process_message(self, delivery: _Delivery, now: float, batch: UnitOfWork) -> None:
        self.counts["received"] += 1
        content = delivery.content
        if isinstance(content, RejectedMessage):
            self._reject(delivery.number, delivery.message, content, now, batch)
            return
        try:
            self._accept(content, delivery, now, batch)
        except (TooManyDevicesError, OwnClientError) as e:
            reason = RejectReason.WRONG_DEVICE if isinstance(e, OwnClientError) else RejectReason.TOO_MANY
            self._reject(
                delivery.number, delivery.message, RejectedMessage(content.device_id, reason, str(e)), now, batch
            )
        except Exception as e:  # noqa: BLE001 - one message must never stop the others
            if self._fleet.budget.admits_line(content.device_id, now):
                failure = {"device": content.device_id, "topic": delivery.message.topic, "error": repr(e)[:MAX_ERROR]}
                self._log("message failed", failure)
            why = RejectedMessage(content.device_id, RejectReason.OTHER, "the controller could not process it")
            self._reject(delivery.number, delivery.message, why, now, batch)

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
                if self._on_renewal is not None and not self._is_again:
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

    def _reject(
        self, number: int, message: IncomingMessage, why: RejectedMessage, now: float, batch: UnitOfWork
    ) -> None:
        self.counts[f"refused:{why.reason.value}"] += 1
        key = number, why.reason
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._answer(why, now)
        if not answer.is_told:
            self.counts["unanswered"] += 1
            return
        if answer.entry is not None:
            batch.audit.extend((now, one) for one in self._fleet.budget.admit((answer.entry,), now))
        if answer.is_stored:
            size, payload = len(message.payload), message.payload[:MAX_DEAD_PAYLOAD]
            dead = DeadLetter(now, why.device_id, message.topic[:256], why.reason.value, why.detail, size, payload)
            batch.dead.append(dead)
        if why.device_id:
            about = parse_up(message.topic).channel
            receipt = SendReceipt(why.device_id, why.seq, ReceiptVerdict.REJECTED, None, why.reason, why.detail, about)
            batch.receipts.append(receipt)

    def _answer(self, why: RejectedMessage, now: float) -> Answer:
        limiter, moment = self._rate_limiter, self._fleet.clock.monotonic()
        if not limiter.may_send_receipt(why.device_id, moment):
            return Answer(is_told=False, entry=None, is_stored=False)
        entry = self._rejections.audit_entry(why, now)
        return Answer(is_told=True, entry=entry, is_stored=limiter.may_store_rejection(moment))


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
