"""The hot path: a batch of messages in, one commit, then the acknowledgements in order and the receipts."""

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
from controller.service.fleet_state import FleetState, TooManyDevicesError
from controller.service.ingest.decoding import DecodedMessage, RejectedMessage, decode
from controller.service.ingest.deduplication import ReportDeduplicator
from controller.service.ingest.delta import merge
from controller.service.ingest.rate_limit import RateLimiter, devices_of
from controller.service.ingest.receipts import evidence_of, read_whole, receipt_json
from controller.service.ingest.rejections import RejectionLog
from controller.service.ingest.signatures import AdmittedMessage, DuplicateReport, ReportSignatureVerifier
from controller.service.unit_of_work import UnitOfWork
from schemas.commands import CommandResult
from schemas.enrolment import RenewRequest
from schemas.events import DeviceEvent, ReceiptVerdict, RejectReason, Status
from schemas.posture import DeltaReport, FullReport, Heartbeat, sections_of
from schemas.topics import PRESENCE_PREFIX, DownChannel, down, parse_up

MAX_BATCH: Final = 512  # messages
BATCHES_AHEAD: Final = 1  # decided and waiting for the disk, beside the one being written and the one being decided
MAX_DEAD_PAYLOAD: Final = 2048  # bytes of a refused message that are kept
MAX_HEARTBEAT: Final = 1024  # bytes; what is longer is a report, which needs no stored one
RECEIPT_EXPIRY: Final = 600  # seconds; by then the device has asked again
HELD_PAUSE: Final = 0.5  # seconds in which nothing else came; then a held status is looked at again

_DELTA: Final = b'"delta"'


@dataclass(frozen=True, slots=True)
class _Delivery:
    message: IncomingMessage
    content: DecodedMessage | RejectedMessage
    received_at: float  # Unix seconds
    stored: Mapping[str, bytes]
    seal: AdmittedMessage | None = None  # of a signed message


@dataclass(frozen=True, slots=True)
class _Decided:
    """A batch that is on its way to the disk; `kept` is awaited before anybody hears of it."""

    messages: Sequence[IncomingMessage]
    batch: UnitOfWork
    kept: Awaitable[None] | None


class Ingest:
    """Takes messages from the link to the store.

    `counts` has received, confirmed (kept and acknowledged), reports (full ones), deltas, heartbeats, refused:<reason>,
    unanswered (refusals of which nobody was told), receipts_not_sent.
    """

    def __init__(
        self,
        messages: Messages,
        fleet: FleetState,
        log: Log,
        fairness: RateLimiter | None = None,
        seals: ReportSignatureVerifier | None = None,
        on_renewal: Callable[[str, RenewRequest], None] | None = None,
        on_presence: Callable[[Sequence[IncomingMessage]], None] | None = None,
    ) -> None:
        """`on_renewal` answers requests for a certificate later; `on_presence` gets the broker's presence messages."""
        self._messages = messages
        self._fleet = fleet
        self._log = log
        self._fairness = fairness or RateLimiter()
        self._sameness = ReportDeduplicator()
        self._seals = seals
        self._refusals = RejectionLog()
        self.counts: Counter[str] = Counter()
        self._on_renewal = on_renewal
        self._on_presence = on_presence
        self._unkept: list[Mapping[str, StoredReport]] = []  # of batches that are decided and not on disk yet

    async def run(self) -> None:
        """Until cancelled: while one batch is written to disk, the next one is decided already."""
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
        if not self._fairness.is_holding:
            return await self._messages.receive(MAX_BATCH)
        try:
            async with asyncio.timeout(HELD_PAUSE):
                return await self._messages.receive(MAX_BATCH)
        except TimeoutError:
            return ()

    async def take(self, messages: Sequence[IncomingMessage]) -> None:
        """One batch: decided, kept, acknowledged, answered, in this order."""
        await self._confirm(await self._decide(messages))

    async def _decide(self, messages: Sequence[IncomingMessage]) -> _Decided:
        clock = self._fleet.clock
        if self._on_presence is None:
            said = messages
        else:
            said = [one for one in messages if not one.topic.startswith(PRESENCE_PREFIX)]
            if len(said) < len(messages):
                self._on_presence([one for one in messages if one.topic.startswith(PRESENCE_PREFIX)])
        read, over = self._fairness.choose(said, clock.monotonic(), self._is_awaited)
        seals = self._opened(read, clock.now())
        stored = await self._stored_reports(read)
        # No await from here to `submit`: nothing else may change a device in between.
        batch = UnitOfWork()
        now = clock.now()
        offset = now - clock.monotonic()
        for number, message in enumerate(read):
            seal = seals.get(number)
            if isinstance(seal, DuplicateReport):
                batch.receipts.append(SendReceipt(seal.device_id, seal.seq, ReceiptVerdict.ACCEPTED, seal.digest))
                continue
            content = seal if isinstance(seal, RejectedMessage) else decode(message, self._shorten)
            opened = seal if isinstance(seal, AdmittedMessage) else None
            self._one(_Delivery(message, content, message.received_at + offset, stored, opened), now, batch)
        for message, device_id in devices_of(over):
            self.counts["received"] += 1
            self._refuse(message, RejectedMessage(device_id, RejectReason.TOO_MANY, self._fairness.why), now, batch)
        if batch.reports:
            self._unkept.append(batch.reports)
        return _Decided(messages, batch, self._fleet.enqueue_commit(batch))

    async def _confirm(self, decided: _Decided) -> None:
        batch = decided.batch
        if decided.kept is not None:
            await decided.kept
        if batch.reports:
            self._unkept.remove(batch.reports)
        self._fleet.publish_committed(batch)
        self._messages.acknowledge(decided.messages)
        for receipt in batch.receipts:
            self._answer(receipt)
        self.counts["confirmed"] += len(decided.messages)

    def _opened(
        self, messages: list[IncomingMessage], now: float
    ) -> dict[int, AdmittedMessage | DuplicateReport | RejectedMessage]:
        """What is signed, or should be, by its place in the list, where the report itself takes the envelope's."""
        found: dict[int, AdmittedMessage | DuplicateReport | RejectedMessage] = {}
        if self._seals is None or not self._seals.concern(messages):
            return found
        for number, message in enumerate(messages):
            opened = self._seals.open(message, now)
            if not isinstance(opened, AdmittedMessage):
                found[number] = opened
            elif opened.is_sealed:
                found[number], messages[number] = opened, opened.message
                self.counts["signed"] += 1
                self.counts["missing"] += opened.missing
        return found

    def _is_awaited(self, device_id: str) -> bool:
        device = self._fleet.get(device_id)
        return device is not None and bool(device.commands)

    def _shorten(self, device_id: str, payload: bytes) -> bytes | None:
        device = self._fleet.get(device_id)
        return None if device is None else self._sameness.shortened(device, self._fleet.policies.version, payload)

    async def _stored_reports(self, messages: Sequence[IncomingMessage]) -> dict[str, bytes]:
        """Stored reports, to judge again where the policies changed before a heartbeat, or to change by a delta."""
        fleet = self._fleet
        version = fleet.policies.version
        found: dict[str, bytes] = {}
        for message, device_id in devices_of(messages):
            # Not read yet: a report that merely has the word in it costs a needless look into the store.
            is_delta = _DELTA in message.payload
            if not is_delta and len(message.payload) > MAX_HEARTBEAT:
                continue
            device = fleet.get(device_id)
            if device is None or not device.digest or device_id in found:
                continue
            if not is_delta and device.judged_by == version:
                continue
            report = self._under_way(device_id) or await fleet.store.report(device_id)
            if report is not None:
                found[device_id] = report
        return found

    def _under_way(self, device_id: str) -> bytes | None:
        """A report that is later than the stored one, and on its way there."""
        return next((reports[device_id].body for reports in reversed(self._unkept) if device_id in reports), None)

    def _one(self, delivery: _Delivery, now: float, batch: UnitOfWork) -> None:
        self.counts["received"] += 1
        content = delivery.content
        if isinstance(content, RejectedMessage):
            self._refuse(delivery.message, content, now, batch)
            return
        try:
            self._accept(content, delivery, now, batch)
        except TooManyDevicesError as e:
            self._refuse(
                delivery.message, RejectedMessage(content.device_id, RejectReason.TOO_MANY, str(e)), now, batch
            )
        except Exception as e:  # noqa: BLE001 - one message must never stop the others
            failure = {"device": content.device_id, "topic": delivery.message.topic, "error": repr(e)}
            self._log("message failed", failure)
            why = RejectedMessage(content.device_id, RejectReason.OTHER, "the controller could not work with it")
            self._refuse(delivery.message, why, now, batch)

    def _accept(self, content: DecodedMessage, delivery: _Delivery, now: float, batch: UnitOfWork) -> None:
        fleet = self._fleet
        device = fleet.get_or_new(content.device_id, now)
        if self._takes_quietly(device, content, delivery, batch):
            return
        body = content.body
        if isinstance(body, FullReport):
            self._full(device, body, content.same, delivery, now, batch)
            return
        if isinstance(body, DeltaReport):
            self._delta(device, body, delivery, now, batch)
            return
        event_id = fleet.new_id()
        event: ev.DomainEvent
        match body:
            case Heartbeat() as beat:
                facts = self._facts_again(device, beat, delivery.stored)
                event = ev.HeartbeatReceived(
                    event_id,
                    beat.seq,
                    beat.digest,
                    delivery.received_at,
                    None if facts is None else fleet.evaluator(facts),
                    fleet.policies.version,
                    predicates=None if facts is None else fleet.evaluator.evaluate_predicates(facts),
                    evidence=evidence_of(is_sealed=delivery.seal is not None),
                    missing=0 if delivery.seal is None else delivery.seal.missing,
                )
            case Status() as status:
                event = ev.StatusChanged(event_id, status.state == "online", status.boot_id)
            case DeviceEvent() as told:
                event = _told(event_id, told, device, delivery.received_at, fleet.policies)
            case RenewRequest() as wanted:
                if self._on_renewal is not None:
                    self._on_renewal(content.device_id, wanted)
                return
            case CommandResult() as result:
                event = ev.CommandReported(
                    event_id, result.command_id, result.state, result.reason, tuple(result.detail.items())
                )
        fleet.apply(device, event, now, batch)

    def _takes_quietly(self, device: Device, content: DecodedMessage, delivery: _Delivery, batch: UnitOfWork) -> bool:
        """The usual case, by far: nothing is new but that the device was heard, so nothing has to be decided."""
        body = content.body
        if delivery.seal is not None and (delivery.seal.missing or not device.signs):
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

    def _delta(self, device: Device, delta: DeltaReport, delivery: _Delivery, now: float, batch: UnitOfWork) -> None:
        """Judge and keep the whole that a delta makes of the stored report, or ask for a full one."""
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
        report = None if merged is None else read_whole(merged)
        if merged is None or report is None:
            # As for a heartbeat of another posture: it was heard, and all of it is asked for.
            fleet.apply(device, ev.HeartbeatReceived(fleet.new_id(), delta.seq, "", delivery.received_at), now, batch)
            return
        whole = replace(delivery, message=replace(delivery.message, payload=merged))
        self._full(device, report, False, whole, now, batch)

    def _full(
        self, device: Device, report: FullReport, same: bool, delivery: _Delivery, now: float, batch: UnitOfWork
    ) -> None:
        fleet = self._fleet
        payload = delivery.message.payload
        facts = None if same else fleet.evaluator.facts(report.sections, *_who(device))
        event = ev.PostureReported(
            fleet.new_id(),
            report.seq,
            report.digest,
            report.boot_id,
            report.agent,
            delivery.received_at,
            None if facts is None else fleet.evaluator(facts),
            fleet.policies.version,
            evidence=evidence_of(is_sealed=delivery.seal is not None),
            answers=report.answers,
            predicates=None if facts is None else fleet.evaluator.evaluate_predicates(facts),
            receipt=report.receipt,
            missing=0 if delivery.seal is None else delivery.seal.missing,
        )
        outcome = fleet.apply(device, event, now, batch, payload)
        if not same and any(receipt.verdict is ReceiptVerdict.ACCEPTED for receipt in outcome.receipts):
            self._sameness.accepted(device, fleet.policies.version, payload)

    def _facts_again(self, device: Device, beat: Heartbeat, stored: Mapping[str, bytes]) -> DeviceFacts | None:
        """What the stored report says, where it was judged by other policies than the present ones."""
        fleet = self._fleet
        raw = stored.get(device.device_id)
        if raw is None or device.judged_by == fleet.policies.version or beat.digest != device.digest:
            return None
        return fleet.evaluator.facts(sections_of(raw), *_who(device))

    def _refuse(self, message: IncomingMessage, why: RejectedMessage, now: float, batch: UnitOfWork) -> None:
        self.counts[f"refused:{why.reason.value}"] += 1
        fairness, moment = self._fairness, self._fleet.clock.monotonic()
        if not fairness.may_answer(why.device_id, moment):
            self.counts["unanswered"] += 1
            return
        line = self._refusals.line(why, now)
        if line is not None:
            batch.audit.append((now, line))
        if fairness.may_keep(moment):
            batch.dead.append(
                DeadLetter(
                    now,
                    why.device_id,
                    message.topic[:256],
                    why.reason.value,
                    why.detail,
                    len(message.payload),
                    message.payload[:MAX_DEAD_PAYLOAD],
                )
            )
        if why.device_id:
            about = parse_up(message.topic).channel
            receipt = SendReceipt(why.device_id, why.seq, ReceiptVerdict.REJECTED, None, why.reason, why.detail, about)
            batch.receipts.append(receipt)

    def _answer(self, receipt: SendReceipt) -> None:
        topic = down(receipt.device_id, DownChannel.RECEIPT)
        if not self._messages.publish_nowait(topic, receipt_json(receipt), expiry_seconds=RECEIPT_EXPIRY):
            self.counts["receipts_not_sent"] += 1


def _told(event_id: str, told: DeviceEvent, device: Device, at: float, policies: PolicySet) -> ev.DeviceEventReported:
    facts = event_facts(told, device.device_id, device.device_class, device.tags)
    return ev.DeviceEventReported(
        event_id,
        told.kind,
        told.severity,
        told.count,
        told.summary,
        tuple(told.detail.items()),
        at,
        evaluate_event(policies.policies, facts),
    )


def _who(device: Device) -> tuple[str, str, tuple[str, ...]]:
    return device.device_id, device.device_class, device.tags
