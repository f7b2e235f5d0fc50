"""Decides, as time and messages pass, what is reported when: full reports until their receipt, heartbeats otherwise."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from device_agent.domain.delta import DeltaBase, base_of, delta_of
from device_agent.domain.report import ReportContent, ReportSender, full_report, heartbeat
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

# Between two full reports that were asked for: a controller gone wrong must not make the device flood the broker.
RESEND_SECONDS: Final = 1.0
# Between two scans that a receipt asked for: anybody at the broker can write one.
CHALLENGE_SECONDS: Final = 5.0
REFUSED_EVENT_SECONDS: Final = 10.0  # between two events about refused commands, which anybody at the broker can cause
_AGAIN_SECONDS: Final = 1.0  # until the next try, when the link took nothing
_IDLE_SECONDS: Final = 3600.0
_log = logging.getLogger(__name__)


class Reporter:
    """What the controller knows of this device, and what it has to be told; any thread."""

    def __init__(
        self,
        sender: ReportSender,
        settings: ReportSettings,
        store: ReportStore,
        publish: Publish,
        clock: Clock,
        on_challenge: Callable[[], None],
        signer: "ReportSigner | None" = None,
    ) -> None:
        """`on_challenge` starts a scan, whose report answers a nonce; with a `signer` every report is signed."""
        self._mutex = threading.RLock()
        self._sender = sender
        self._signer: ReportSigner | None = None
        self.set_signer(signer)
        self._settings = settings
        self._store = store
        self._publish = publish
        self._clock = clock
        self.wake = threading.Event()  # set when `tick` may have something to do earlier than it said
        self._outbox: ReportOutbox = store.outbox()
        self._findings: ReportContent | None = None
        self._told_digest: str | None = None  # of the newest full report that was not rejected
        self._accepted_digest: str | None = None
        # What a delta may refer to: the last report with a receipt, and those that wait for theirs, by number.
        self._base: DeltaBase | None = None
        self._bases: dict[int, DeltaBase] = {}
        self._may_send_deltas = True
        self._full_wanted_at: float | None = None
        # A contained device is asked for a report made after a nonce was sent.
        self.nonce = ""
        self._on_challenge = on_challenge
        self._scan_wanted_at: float | None = None
        self._last_challenge_at = float("-inf")
        self._last_full_at = float("-inf")
        self._last_sent_at = float("-inf")
        self._is_online = False
        self._is_telling_dropped = False
        self._has_leapt = False
        self._refused: tuple[int, str] = (0, "")
        self._refused_told_at = float("-inf")

    def set_signer(self, signer: "ReportSigner | None") -> None:
        """Signs with this key from the next report on, repeated reports included."""
        with self._mutex:
            self._signer = signer
            self._sender = replace(self._sender, signing_key="" if signer is None else signer.public_key_base64)

    def found(self, findings: ReportContent, *, force: bool) -> None:
        """A scan is done; a full report goes out when it found something new, or with `force`."""
        with self._mutex:
            self._findings = findings
            if force or findings.digest != self._told_digest:
                self._owe(whole=force)
        self.wake.set()

    def online(self) -> None:
        """The broker is there (again): whatever was under way is sent again."""
        with self._mutex:
            self._is_online = True
            self._is_telling_dropped = False
            self._outbox = self._outbox.reconnected()
        self.wake.set()

    def offline(self) -> None:
        """The broker is gone."""
        with self._mutex:
            self._is_online = False

    def receipt(self, raw: bytes) -> None:
        """The controller's word on a report."""
        try:
            receipt = ReportReceipt.model_validate_json(
                raw[: MAX_RECEIPT_BYTES + 1]
            )  # a longer one is broken by the cut
        except ValidationError:
            _log.warning("a receipt that cannot be read was ignored")
            return
        with self._mutex:
            if receipt.about is not UpChannel.POSTURE:
                _log.warning("the controller refused a message about %s: %s", receipt.about, receipt.detail)
            outbox, settled = self._outbox.settle(receipt)
            self._keep(outbox)
            if settled.accepted is not None and receipt.seq is not None:
                self._accepted_digest = settled.accepted
                self._base = self._bases.get(receipt.seq)
                self._bases = {seq: base for seq, base in self._bases.items() if seq > receipt.seq}
                self._has_leapt = False
            if settled.rejected is not None:
                _log.warning("the controller rejected report %s: %s", receipt.seq, settled.rejected)
                self._rejected(receipt.reason)
            if settled.deferred is not None:
                _log.warning("the controller did not take report %s yet: %s", receipt.seq, settled.deferred)
            self.nonce = receipt.nonce or self.nonce
            if settled.resend:
                self._base = None
                if receipt.nonce is None:
                    self._want_full()
                else:
                    self._want_scan()
        self.wake.set()

    def command_refused(self, reason: str) -> None:
        """Somebody sent a command that no trusted key signed for this device."""
        with self._mutex:
            self._refused = (self._refused[0] + 1, reason)
        self.wake.set()

    def tick(self) -> float:
        """Send what is due; returns after how many seconds to come back at the latest."""
        with self._mutex:
            if not self._is_online:
                return _IDLE_SECONDS
            now = self._clock.monotonic()
            if self._full_wanted_at is not None and now >= self._full_wanted_at:
                self._owe(whole=True)
            if self._scan_wanted_at is not None and now >= self._scan_wanted_at:
                self._scan_wanted_at, self._last_challenge_at = None, now
                self._on_challenge()
            is_stuck = not (self._send_owed(now) and self._send_events(now) and self._send_heartbeat(now))
            return _AGAIN_SECONDS if is_stuck else max(0.0, self._next(now) - now)

    def _send_owed(self, now: float) -> bool:
        for report in self._outbox.due(now, self._settings.receipt_timeout):
            if not self._post(report.payload.encode()):
                return False
            self._outbox = self._outbox.sent(report.seq, now)
            self._last_full_at = self._last_sent_at = now
            _log.info("report %d sent (attempt %d)", report.seq, report.attempts + 1)
        return True

    def _post(self, report: bytes) -> bool:
        return self._publish(UpChannel.POSTURE, report if self._signer is None else self._signer.sign(report))

    def _send_heartbeat(self, now: float) -> bool:
        # While a full report is owed it speaks for us; a heartbeat with a higher number would make it look stale.
        # After a rejection there is nothing that it could truthfully refer to.
        if self._outbox.owed or self._told_digest is None or self._accepted_digest is None:
            return True
        if now < self._last_sent_at + self._settings.heartbeat_every:
            return True
        beat = heartbeat(self._sender, self._store.next_seq(), self._clock.now(), self._accepted_digest)
        if not self._post(beat):
            return False
        self._last_sent_at = now
        return True

    def _send_events(self, now: float) -> bool:
        dropped = self._outbox.dropped
        if dropped and not self._is_telling_dropped:
            summary = "full reports given up while the controller could not be reached"
            event = self._event("reports_dropped", "medium", dropped, summary)
            if not self._publish(UpChannel.EVENT, event, partial(self._dropped_told, dropped)):
                return False
            self._is_telling_dropped = True
        count, reason = self._refused
        if count and now >= self._refused_told_at + REFUSED_EVENT_SECONDS:
            if not self._publish(UpChannel.EVENT, self._event("command_refused", "high", count, reason)):
                return False
            self._refused, self._refused_told_at = (0, ""), now
        return True

    def _next(self, now: float) -> float:
        times = [now + _IDLE_SECONDS]
        if (due := self._outbox.next_due(self._settings.receipt_timeout)) is not None:
            times.append(due)
        elif self._accepted_digest is not None and self._told_digest is not None:
            times.append(self._last_sent_at + self._settings.heartbeat_every)
        times += [at for at in (self._full_wanted_at, self._scan_wanted_at) if at is not None]
        if self._refused[0]:
            times.append(self._refused_told_at + REFUSED_EVENT_SECONDS)
        return min(times)

    def _owe(self, *, whole: bool) -> None:
        if self._findings is None:
            return
        self._full_wanted_at = None
        seq = self._store.next_seq()
        payload = full_report(self._sender, seq, self._clock.now(), self._findings, self._accepted_digest)
        before = self._outbox.without(self._findings.digest)
        # While an earlier report waits for its receipt nobody knows what the controller will hold.
        is_delta = self._may_send_deltas and not whole and self._base is not None and not before.owed
        sent = delta_of(payload, self._base) if is_delta and self._base is not None else None
        self._bases = {owed.seq: self._bases[owed.seq] for owed in before.owed if owed.seq in self._bases}
        self._bases[seq] = base_of(payload)
        report = PendingReport(seq=seq, digest=self._findings.digest, payload=(sent or payload).decode())
        self._told_digest = report.digest
        self._keep(before.owe(report))

    def _keep(self, outbox: ReportOutbox) -> None:
        before, self._outbox = self._outbox, outbox
        if [r.seq for r in before.owed] != [r.seq for r in outbox.owed] or before.dropped != outbox.dropped:
            self._store.save_outbox(outbox)

    def _want_full(self) -> None:
        if self._full_wanted_at is None:
            self._full_wanted_at = max(self._clock.monotonic(), self._last_full_at + RESEND_SECONDS)

    def _want_scan(self) -> None:
        if self._scan_wanted_at is None:
            self._scan_wanted_at = max(self._clock.monotonic(), self._last_challenge_at + CHALLENGE_SECONDS)

    def _rejected(self, reason: RejectReason | None) -> None:
        # The same report would be rejected again: the next scan sends a new one, changed or not.
        self._told_digest = self._base = None
        if reason is RejectReason.UNKNOWN_KIND:
            _log.info("the controller does not know deltas: full reports from here on")
            self._may_send_deltas = False
            self._want_full()
        if reason is RejectReason.STALE_SEQUENCE and not self._has_leapt:
            self._has_leapt = True
            self._store.skip_seq_ahead()
            self._want_full()

    def _dropped_told(self, count: int, taken: bool) -> None:
        with self._mutex:
            if taken:
                self._keep(self._outbox.told(count))
            self._is_telling_dropped = False

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
