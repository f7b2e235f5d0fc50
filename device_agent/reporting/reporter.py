"""Decides what is reported when: full reports until the controller confirms them, heartbeats otherwise."""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from device_agent.domain.report import (
    MAX_HEADER_BYTES,
    DeltaBase,
    ReportContent,
    ReportSender,
    delta_base,
    full_report,
    heartbeat,
    make_delta,
)
from device_agent.domain.report_outbox import PendingReport, ReportOutbox
from device_agent.host.clock import Clock
from device_agent.mqtt_client import Publish
from device_agent.reporting.report_store import ReportStore
from device_agent.settings import ReportSettings
from schemas.base import MAX_RECEIPT_BYTES, clean_text
from schemas.events import DeviceEvent, RejectReason, ReportReceipt
from schemas.topics import UpChannel

if TYPE_CHECKING:  # only an agent that signs loads what signing needs
    from device_agent.reporting.signer import ReportSigner

# Between two requested full reports: a faulty controller must not make the device flood the broker.
RESEND_SECONDS: Final = 1.0
# Between two scans that a receipt asked for: any client of the broker may be able to publish one.
CHALLENGE_SECONDS: Final = 5.0
# Between two events about forged commands, which any client of the broker can cause.
FORGED_EVENT_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0  # after the connection accepted nothing
_IDLE_SECONDS: Final = 3600.0
_log = logging.getLogger(__name__)


class Reporter:
    """Publishes the reports of one device, and follows the controller's receipts; any thread."""

    def __init__(
        self,
        sender: ReportSender,
        settings: ReportSettings,
        store: ReportStore,
        publish: Publish,
        clock: Clock,
        on_challenge: Callable[[], None],
        signer: "ReportSigner | None" = None,
        max_payload: Callable[[], int] = lambda: 0,
    ) -> None:
        """`on_challenge` starts a scan, whose report answers a nonce; with a `signer` every report is signed.

        `max_payload` returns the bytes that the broker takes; 0: any.
        """
        self._mutex = threading.RLock()
        self._sender = sender
        self._signer: ReportSigner | None = None
        self.set_signer(signer)
        self._settings = settings
        self._store = store
        self._publish = publish
        self._clock = clock
        self._max_payload = max_payload
        self._too_large: str = ""  # to be reported as an event
        self._is_too_large_reported = False
        self.wake = threading.Event()  # set when `send_due` may have work earlier than it returned
        self._outbox: ReportOutbox = store.outbox()
        self._content: ReportContent | None = None
        self._reported_digest: str | None = None  # of the newest full report that was not rejected
        self._accepted_digest: str | None = None
        # Bases for deltas: the last confirmed report, and the pending ones by sequence number.
        self._base: DeltaBase | None = None
        self._bases: dict[int, DeltaBase] = {}
        self._may_send_deltas = True
        self._full_report_at: float | None = None
        # A contained device is asked for a report made after a nonce was sent.
        self.nonce = ""
        self._on_challenge = on_challenge
        self._scan_at: float | None = None
        self._last_challenge_at = float("-inf")
        self._last_full_at = float("-inf")
        self._last_sent_at = float("-inf")
        self._is_online = False
        self._is_reporting_drops = False
        self._has_skipped_seq = False
        self._forged: tuple[int, str] = (0, "")
        self._forged_reported_at = float("-inf")

    def set_signer(self, signer: "ReportSigner | None") -> None:
        """Signs with this key from the next report on, repeated reports included."""
        with self._mutex:
            self._signer = signer
            self._sender = replace(self._sender, signing_key="" if signer is None else signer.public_key_base64)

    def on_scan(self, content: ReportContent, *, force: bool) -> None:
        """Reports the result of a scan when it differs from the last report, or with `force`."""
        with self._mutex:
            self._content = content
            if force or content.digest != self._reported_digest:
                self._enqueue(force_full=force)
        self.wake.set()

    def on_connected(self) -> None:
        """Resumes sending; pending reports are sent again."""
        with self._mutex:
            self._is_online = True
            self._is_reporting_drops = False
            self._outbox = self._outbox.mark_all_due()
        self.wake.set()

    def on_disconnected(self) -> None:
        """Pauses sending."""
        with self._mutex:
            self._is_online = False

    def on_receipt(self, raw: bytes) -> None:
        """Applies a receipt of the controller."""
        try:
            # Truncation makes a longer receipt invalid.
            receipt = ReportReceipt.model_validate_json(raw[: MAX_RECEIPT_BYTES + 1])
        except ValidationError:
            _log.warning("a receipt that cannot be read was ignored")
            return
        with self._mutex:
            if receipt.about is not UpChannel.POSTURE:
                _log.warning("the controller rejected a message on %s: %s", receipt.about, receipt.detail)
            outbox, outcome = self._outbox.apply_receipt(receipt)
            self._save_outbox(outbox)
            if outcome.accepted is not None and receipt.seq is not None:
                self._accepted_digest = outcome.accepted
                self._base = self._bases.get(receipt.seq)
                self._bases = {seq: base for seq, base in self._bases.items() if seq > receipt.seq}
                self._has_skipped_seq = False
            if outcome.rejected is not None:
                _log.warning("the controller rejected report %s: %s", receipt.seq, outcome.rejected)
                self._on_rejected(receipt.reason)
            if outcome.retry_later is not None:
                _log.warning("the controller did not process report %s yet: %s", receipt.seq, outcome.retry_later)
            self.nonce = receipt.nonce or self.nonce
            if outcome.full_report_requested:
                self._base = None
                if receipt.nonce is None:
                    self._request_full_report()
                else:
                    self._request_scan()
        self.wake.set()

    def on_forged_command(self, reason: str) -> None:
        """Counts a command that no trusted key signed for this device."""
        with self._mutex:
            self._forged = (self._forged[0] + 1, reason)
        self.wake.set()

    def send_due(self) -> float:
        """Sends what is due; returns the seconds after which to call again at the latest."""
        with self._mutex:
            if not self._is_online:
                return _IDLE_SECONDS
            now = self._clock.monotonic()
            if self._full_report_at is not None and now >= self._full_report_at:
                self._enqueue(force_full=True)
            if self._scan_at is not None and now >= self._scan_at:
                self._scan_at, self._last_challenge_at = None, now
                self._on_challenge()
            is_stuck = not (self._send_pending_reports(now) and self._send_events(now) and self._send_heartbeat(now))
            return _RETRY_SECONDS if is_stuck else self._seconds_until_due(now)

    def _send_pending_reports(self, now: float) -> bool:
        for report in self._outbox.due(now, self._settings.receipt_timeout):
            message = self._signed(report.payload.encode())
            most = self._max_payload()
            if most and len(message) > most:
                self._replace_too_large(report.seq, len(message), most)
                return True
            if not self._publish(UpChannel.POSTURE, message):
                return False
            self._outbox = self._outbox.mark_sent(report.seq, now)
            self._last_full_at = self._last_sent_at = now
            _log.info("report %d sent (attempt %d)", report.seq, report.attempts + 1)
        return True

    def _signed(self, report: bytes) -> bytes:
        return report if self._signer is None else self._signer.sign(report)

    def _publish_report(self, report: bytes) -> bool:
        return self._publish(UpChannel.POSTURE, self._signed(report))

    def _replace_too_large(self, seq: int, size: int, most: int) -> None:
        """Drops a report that the broker would not take, and enqueues one with shorter lists."""
        self._save_outbox(self._outbox.without(seq))
        self._too_large = f"a report has {size} bytes, and the broker takes {most}: raise mqtt.max_packet_size there"
        _log.error("%s; its lists are shortened", self._too_large)
        self._reported_digest = self._base = None
        self._enqueue(force_full=True)

    def _fitted(self, content: ReportContent) -> ReportContent | None:
        """Returns the content with lists as long as the broker takes; None if it takes not even empty ones."""
        most = self._max_payload()
        room = most if self._signer is None else most * 3 // 4 - MAX_HEADER_BYTES  # of base64 and the envelope
        if not most or len(content.sections.encode()) + MAX_HEADER_BYTES <= room:
            return content
        from device_agent.domain.report_limits import ScanFindings, truncate_to_size  # large: only where needed

        findings = ScanFindings(json.loads(content.sections), content.digest)
        try:
            shorter = truncate_to_size(findings, room - MAX_HEADER_BYTES)
        except ValueError as e:
            self._too_large = f"no report fits what the broker takes ({most} bytes): raise mqtt.max_packet_size there"
            _log.error("%s (%s)", self._too_large, e)
            return None
        return replace(shorter, challenge_nonce=content.challenge_nonce)

    def _send_heartbeat(self, now: float) -> bool:
        # A heartbeat with a higher number would make a pending full report look stale. After a rejection there is no
        # report that it could refer to.
        if self._outbox.reports or self._reported_digest is None or self._accepted_digest is None:
            return True
        if now < self._last_sent_at + self._settings.heartbeat_every:
            return True
        payload = heartbeat(self._sender, self._store.next_seq(), self._clock.now(), self._accepted_digest)
        if not self._publish_report(payload):
            return False
        self._last_sent_at = now
        return True

    def _send_events(self, now: float) -> bool:
        dropped = self._outbox.dropped
        if dropped and not self._is_reporting_drops:
            summary = "full reports dropped while the controller could not be reached"
            event = self._event("reports_dropped", "medium", dropped, summary)
            if not self._publish(UpChannel.EVENT, event, partial(self._on_drop_event_confirmed, dropped)):
                return False
            self._is_reporting_drops = True
        if self._too_large and not self._is_too_large_reported:
            event = self._event("report_too_large", "medium", 1, self._too_large)
            if not self._publish(UpChannel.EVENT, event):
                return False
            self._is_too_large_reported = True
        count, reason = self._forged
        if count and now >= self._forged_reported_at + FORGED_EVENT_SECONDS:
            if not self._publish(UpChannel.EVENT, self._event("command_refused", "high", count, reason)):
                return False
            self._forged, self._forged_reported_at = (0, ""), now
        return True

    def _seconds_until_due(self, now: float) -> float:
        times = [now + _IDLE_SECONDS]
        if (due := self._outbox.next_due(self._settings.receipt_timeout)) is not None:
            times.append(due)
        elif self._accepted_digest is not None and self._reported_digest is not None:
            times.append(self._last_sent_at + self._settings.heartbeat_every)
        times += [at for at in (self._full_report_at, self._scan_at) if at is not None]
        if self._forged[0]:
            times.append(self._forged_reported_at + FORGED_EVENT_SECONDS)
        return max(0.0, min(times) - now)

    def _enqueue(self, *, force_full: bool) -> None:
        self._full_report_at = None
        content = None if self._content is None else self._fitted(self._content)
        if self._content is None or content is None:
            return
        seq = self._store.next_seq()
        full = full_report(self._sender, seq, self._clock.now(), content, self._accepted_digest)
        outbox = self._outbox.discard_superseded(self._content.digest)
        # While a report is pending, it is unknown which base the controller holds.
        may_be_delta = self._may_send_deltas and not force_full and not outbox.reports
        delta = make_delta(full, self._base) if may_be_delta and self._base is not None else None
        self._bases = {item.seq: self._bases[item.seq] for item in outbox.reports if item.seq in self._bases}
        self._bases[seq] = delta_base(full)
        report = PendingReport(seq=seq, digest=self._content.digest, payload=(delta or full).decode())
        self._reported_digest = report.digest
        self._save_outbox(outbox.add(report))

    def _save_outbox(self, outbox: ReportOutbox) -> None:
        before, self._outbox = self._outbox, outbox
        if [r.seq for r in before.reports] != [r.seq for r in outbox.reports] or before.dropped != outbox.dropped:
            self._store.save_outbox(outbox)

    def _request_full_report(self) -> None:
        if self._full_report_at is None:
            self._full_report_at = max(self._clock.monotonic(), self._last_full_at + RESEND_SECONDS)

    def _request_scan(self) -> None:
        if self._scan_at is None:
            self._scan_at = max(self._clock.monotonic(), self._last_challenge_at + CHALLENGE_SECONDS)

    def _on_rejected(self, reason: RejectReason | None) -> None:
        # The same report would be rejected again: the next scan sends a new one, changed or not.
        self._reported_digest = self._base = None
        if reason is RejectReason.UNKNOWN_KIND:
            _log.info("the controller does not know deltas: full reports from here on")
            self._may_send_deltas = False
            self._request_full_report()
        if reason is RejectReason.STALE_SEQUENCE and not self._has_skipped_seq:
            self._has_skipped_seq = True
            self._store.skip_seq_ahead()
            self._request_full_report()

    def _on_drop_event_confirmed(self, count: int, delivered: bool) -> None:
        with self._mutex:
            if delivered:
                self._save_outbox(self._outbox.drops_reported(count))
            self._is_reporting_drops = False

    def _event(self, kind: str, severity: str, count: int, summary: str) -> bytes:
        event = DeviceEvent.model_validate(
            {
                "device_id": self._sender.device_id,
                "kind": kind,
                "severity": severity,
                "count": count,
                "summary": clean_text(summary),
                "at": self._clock.now(),
            }
        )
        return event.model_dump_json().encode()
