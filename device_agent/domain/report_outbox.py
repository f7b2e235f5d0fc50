"""What the device owes the controller: full reports without their receipt, bounded, and when each goes out again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

from schemas.backoff import Backoff
from schemas.events import ReceiptVerdict, RejectReason, ReportReceipt
from schemas.topics import UpChannel

MAX_OWED: Final = 16  # full reports kept through an outage, so at most 1 MiB
_HEAD: Final = 400  # characters of a payload among which its kind is: id, number, time and digest come first
_MAX_RESEND_FACTOR: Final = 10  # times the receipt time-out, between two sendings of one report


@dataclass(frozen=True, slots=True)
class PendingReport:
    """A full report, or a delta, without its receipt.

    `sent_at` is a monotonic time in seconds, None when it is due at once.
    """

    seq: int
    digest: str
    payload: str
    attempts: int = 0
    sent_at: float | None = None

    @property
    def is_delta(self) -> bool:
        """Whether it says only what changed."""
        return '"kind":"delta"' in self.payload[:_HEAD]


@dataclass(frozen=True, slots=True)
class ReceiptOutcome:
    """What a receipt changed: an `accepted` digest, why one was `rejected`, or that a full report is asked for.

    `deferred`: why the controller did not read a report; it is still owed.
    """

    accepted: str | None = None
    rejected: str | None = None
    deferred: str | None = None
    resend: bool = False


@dataclass(frozen=True, slots=True)
class ReportOutbox:
    """Reports in the order of their sequence numbers; `dropped` counts those given up and not yet told of."""

    owed: tuple[PendingReport, ...] = ()
    dropped: int = 0

    def owe(self, report: PendingReport) -> Self:
        """Add the newest report; the oldest are dropped, and counted, beyond `MAX_OWED`."""
        owed = (*self.owed, report)
        excess = max(0, len(owed) - MAX_OWED)
        return replace(self, owed=owed[excess:], dropped=self.dropped + excess)

    def told(self, count: int) -> Self:
        """The controller was told that `count` reports were dropped."""
        return replace(self, dropped=max(0, self.dropped - count))

    def due(self, now: float, timeout: float) -> tuple[PendingReport, ...]:
        """Reports to send at `now`: never sent, or without a receipt for longer than their time-out."""
        return tuple(report for report in self.owed if now >= _due_at(report, timeout))

    def next_due(self, timeout: float) -> float | None:
        """When the next report is due (monotonic seconds; -inf: at once), None when nothing is owed."""
        return min((_due_at(report, timeout) for report in self.owed), default=None)

    def sent(self, seq: int, now: float) -> Self:
        """The report `seq` was handed to the link at `now`."""
        return self._change(seq, lambda report: replace(report, sent_at=now, attempts=report.attempts + 1))

    def reconnected(self) -> Self:
        """What was under way on the old connection may be lost: everything is due at once."""
        return replace(self, owed=tuple(replace(report, sent_at=None) for report in self.owed))

    def settle(self, receipt: ReportReceipt) -> tuple[Self, ReceiptOutcome]:
        """Apply a receipt.

        An accepted report settles the older ones too: the controller would refuse them as stale.
        A rejection that names no report means the oldest that is under way. Others change nothing.
        """
        if receipt.about is not UpChannel.POSTURE:
            return self, ReceiptOutcome()
        if receipt.verdict is ReceiptVerdict.RESEND_FULL:
            # A delta whose base the controller does not hold would be answered so again and again.
            kept = tuple(report for report in self.owed if report.seq != receipt.seq or not report.is_delta)
            return replace(self, owed=kept), ReceiptOutcome(resend=True)
        found = next((report for report in self.owed if self._meant(report, receipt)), None)
        if found is None:
            return self, ReceiptOutcome()
        if receipt.verdict is ReceiptVerdict.ACCEPTED:
            return replace(self, owed=tuple(r for r in self.owed if r.seq > found.seq)), ReceiptOutcome(
                accepted=found.digest
            )
        reason = f"{receipt.reason or 'no reason'}{': ' + receipt.detail if receipt.detail else ''}"
        if receipt.reason is RejectReason.TOO_MANY:
            return self, ReceiptOutcome(
                deferred=reason
            )  # nothing is wrong with the report: it goes out again, ever later
        return replace(self, owed=tuple(r for r in self.owed if r.seq != found.seq)), ReceiptOutcome(rejected=reason)

    def without(self, digest: str) -> Self:
        """Forget the newest report when it has this digest: the one that follows says the same."""
        return replace(self, owed=self.owed[:-1]) if self.owed and self.owed[-1].digest == digest else self

    @staticmethod
    def _meant(report: PendingReport, receipt: ReportReceipt) -> bool:
        if receipt.seq is None:
            return receipt.verdict is ReceiptVerdict.REJECTED and report.sent_at is not None
        return report.seq == receipt.seq

    def _change(self, seq: int, change: Callable[[PendingReport], PendingReport]) -> Self:
        return replace(self, owed=tuple(change(report) if report.seq == seq else report for report in self.owed))


def _due_at(report: PendingReport, timeout: float) -> float:
    if report.sent_at is None:
        return float("-inf")
    wait = Backoff(first=timeout, cap=timeout * _MAX_RESEND_FACTOR).ceiling(max(0, report.attempts - 1))
    return report.sent_at + wait
