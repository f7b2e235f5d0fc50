"""Full reports that the controller has not confirmed: a bounded queue, and when each report is sent again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

from schemas.backoff import Backoff
from schemas.events import ReceiptVerdict, RejectReason, ReportReceipt
from schemas.topics import UpChannel

MAX_PENDING_REPORTS: Final = 16  # kept through an outage, so at most 1 MiB
_KIND_WITHIN: Final = 400  # characters of a payload: its kind follows id, number, time and digest
_MAX_RESEND_FACTOR: Final = 10  # times the receipt time-out, between two attempts to send a report


@dataclass(frozen=True, slots=True)
class PendingReport:
    """A full report, or a delta, without a receipt; `sent_at` in monotonic seconds, None when it is due now."""

    seq: int
    digest: str
    payload: str
    attempts: int = 0
    sent_at: float | None = None

    @property
    def is_delta(self) -> bool:
        """Whether the report has only the sections that changed."""
        return '"kind":"delta"' in self.payload[:_KIND_WITHIN]


@dataclass(frozen=True, slots=True)
class ReceiptOutcome:
    """The effect of a receipt.

    `accepted` is the digest of the accepted report, `rejected` the reason of a rejection. `retry_later` is the reason
    why the controller did not process a report, which stays pending.
    """

    accepted: str | None = None
    rejected: str | None = None
    retry_later: str | None = None
    full_report_requested: bool = False


@dataclass(frozen=True, slots=True)
class ReportOutbox:
    """Pending reports in the order of their sequence numbers; `dropped` counts those dropped and not yet reported."""

    reports: tuple[PendingReport, ...] = ()
    dropped: int = 0

    def add(self, report: PendingReport) -> Self:
        """Adds the newest report; beyond `MAX_PENDING_REPORTS` the oldest are dropped and counted."""
        reports = (*self.reports, report)
        excess = max(0, len(reports) - MAX_PENDING_REPORTS)
        return replace(self, reports=reports[excess:], dropped=self.dropped + excess)

    def drops_reported(self, count: int) -> Self:
        """Subtracts `count` dropped reports that the controller knows of."""
        return replace(self, dropped=max(0, self.dropped - count))

    def due(self, now: float, timeout: float) -> tuple[PendingReport, ...]:
        """Returns the reports to send at `now`: not sent yet, or without a receipt for longer than their time-out."""
        return tuple(report for report in self.reports if now >= _due_at(report, timeout))

    def next_due(self, timeout: float) -> float | None:
        """Returns when the next report is due (monotonic seconds; -inf: now), None when none is pending."""
        return min((_due_at(report, timeout) for report in self.reports), default=None)

    def mark_sent(self, seq: int, now: float) -> Self:
        """Records that report `seq` was handed to the connection at `now`."""
        return self._replace(seq, lambda report: replace(report, sent_at=now, attempts=report.attempts + 1))

    def mark_all_due(self) -> Self:
        """Makes every report due: what was in flight on the former connection may be lost."""
        return replace(self, reports=tuple(replace(report, sent_at=None) for report in self.reports))

    def apply_receipt(self, receipt: ReportReceipt) -> tuple[Self, ReceiptOutcome]:
        """Returns the outbox after a receipt, and its effect.

        An accepted report removes the older ones too: the controller would reject them as stale. A rejection without a
        sequence number applies to the oldest report in flight. Other receipts change nothing.
        """
        if receipt.about is not UpChannel.POSTURE:
            return self, ReceiptOutcome()
        if receipt.verdict is ReceiptVerdict.RESEND_FULL:
            # A delta whose base the controller does not hold would get the same receipt again and again.
            kept = tuple(report for report in self.reports if report.seq != receipt.seq or not report.is_delta)
            return replace(self, reports=kept), ReceiptOutcome(full_report_requested=True)
        match = next((report for report in self.reports if self._matches(report, receipt)), None)
        if match is None:
            return self, ReceiptOutcome()
        if receipt.verdict is ReceiptVerdict.ACCEPTED:
            newer = tuple(report for report in self.reports if report.seq > match.seq)
            return replace(self, reports=newer), ReceiptOutcome(accepted=match.digest)
        reason = f"{receipt.reason or 'no reason'}{': ' + receipt.detail if receipt.detail else ''}"
        if receipt.reason is RejectReason.TOO_MANY:
            # Nothing is wrong with the report: it is sent again, with back-off.
            return self, ReceiptOutcome(retry_later=reason)
        others = tuple(report for report in self.reports if report.seq != match.seq)
        return replace(self, reports=others), ReceiptOutcome(rejected=reason)

    def without(self, seq: int) -> Self:
        """Removes report `seq`."""
        return replace(self, reports=tuple(report for report in self.reports if report.seq != seq))

    def discard_superseded(self, digest: str) -> Self:
        """Removes the newest report when it has this digest: the report that follows has the same content."""
        if self.reports and self.reports[-1].digest == digest:
            return replace(self, reports=self.reports[:-1])
        return self

    @staticmethod
    def _matches(report: PendingReport, receipt: ReportReceipt) -> bool:
        if receipt.seq is None:
            return receipt.verdict is ReceiptVerdict.REJECTED and report.sent_at is not None
        return report.seq == receipt.seq

    def _replace(self, seq: int, change: Callable[[PendingReport], PendingReport]) -> Self:
        return replace(self, reports=tuple(change(item) if item.seq == seq else item for item in self.reports))


def _due_at(report: PendingReport, timeout: float) -> float:
    if report.sent_at is None:
        return float("-inf")
    wait = Backoff(first=timeout, cap=timeout * _MAX_RESEND_FACTOR).ceiling(max(0, report.attempts - 1))
    return report.sent_at + wait
