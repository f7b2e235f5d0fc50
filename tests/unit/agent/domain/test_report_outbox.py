"""Pending reports: when they are sent again, and what receipts change."""

from typing import Any

from device_agent.domain.report_outbox import MAX_PENDING_REPORTS, PendingReport, ReceiptOutcome, ReportOutbox
from schemas.events import ReportReceipt


def _pending(seq: int, digest: str = "") -> PendingReport:
    return PendingReport(seq=seq, digest=digest or f"digest-{seq}", payload="{}")


def _receipt(**fields: Any) -> ReportReceipt:
    return ReportReceipt.model_validate({"v": 1, **fields})


def _with(*seqs: int) -> ReportOutbox:
    outbox = ReportOutbox()
    for seq in seqs:
        outbox = outbox.add(_pending(seq))
    return outbox


def test_a_new_report_is_due_now_and_then_after_a_time_out_that_doubles() -> None:
    outbox = _with(1)
    assert [report.seq for report in outbox.due(0.0, timeout=10)] == [1]
    outbox = outbox.mark_sent(1, 0.0)
    assert outbox.due(9.9, timeout=10) == ()
    assert outbox.next_due(timeout=10) == 10.0
    outbox = outbox.mark_sent(1, 10.0)
    assert outbox.next_due(timeout=10) == 30.0
    for _ in range(60):
        outbox = outbox.mark_sent(1, 0.0)
    assert outbox.next_due(timeout=10) == 100.0
    assert ReportOutbox().next_due(timeout=10) is None


def test_after_a_reconnect_every_report_is_due() -> None:
    outbox = _with(1, 2).mark_sent(1, 0.0).mark_sent(2, 0.0).mark_all_due()
    assert [report.seq for report in outbox.due(0.0, timeout=10)] == [1, 2]


def test_the_oldest_reports_are_dropped_and_counted() -> None:
    outbox = _with(*range(MAX_PENDING_REPORTS + 3))
    assert [report.seq for report in outbox.reports] == list(range(3, MAX_PENDING_REPORTS + 3))
    assert outbox.dropped == 3
    assert outbox.drops_reported(2).dropped == 1
    assert outbox.drops_reported(9).dropped == 0


def test_an_accepted_report_removes_the_older_ones() -> None:
    outbox, outcome = _with(1, 2, 3).apply_receipt(_receipt(seq=2, verdict="accepted"))
    assert [report.seq for report in outbox.reports] == [3]
    assert outcome.accepted == "digest-2"


def test_a_receipt_for_an_unknown_report_changes_nothing() -> None:
    before = _with(5)
    outbox, outcome = before.apply_receipt(_receipt(seq=9, verdict="accepted"))
    assert outbox == before
    assert outcome.accepted is None


def test_a_rejected_report_is_removed_with_its_reason() -> None:
    outbox, outcome = _with(1, 2).apply_receipt(_receipt(seq=1, verdict="rejected", reason="invalid", detail="os.id"))
    assert [report.seq for report in outbox.reports] == [2]
    assert outcome.rejected == "invalid: os.id"


def test_a_rejection_without_a_sequence_number_applies_to_the_oldest_in_flight() -> None:
    rejection = _receipt(seq=None, verdict="rejected", reason="malformed")
    assert _with(1, 2).apply_receipt(rejection)[0].reports == _with(1, 2).reports
    outbox, outcome = _with(1, 2).mark_sent(2, 0.0).apply_receipt(rejection)
    assert [report.seq for report in outbox.reports] == [1]
    assert outcome.rejected == "malformed"


def test_a_report_beyond_the_rate_limit_stays_pending() -> None:
    outbox = _with(1, 2).mark_sent(1, 0.0)
    for seq in (1, None):
        after, outcome = outbox.apply_receipt(_receipt(seq=seq, verdict="rejected", reason="too_many", detail="later"))
        assert (after, outcome.retry_later, outcome.rejected) == (outbox, "too_many: later", None)


def test_a_request_for_a_full_report_removes_no_full_report() -> None:
    outbox, outcome = _with(1).apply_receipt(_receipt(seq=7, verdict="resend_full"))
    assert outcome.full_report_requested
    assert outbox == _with(1)


def test_only_the_newest_report_is_superseded_by_one_with_the_same_digest() -> None:
    outbox = ReportOutbox().add(_pending(1, "a")).add(_pending(2, "b"))
    assert [report.seq for report in outbox.discard_superseded("b").reports] == [1]
    assert [report.seq for report in outbox.discard_superseded("a").reports] == [1, 2]


def test_a_receipt_about_another_channel_changes_nothing() -> None:
    outbox = ReportOutbox().add(_pending(1)).mark_sent(1, 0.0)
    receipt = _receipt(seq=None, verdict="rejected", reason="malformed", about="event")
    assert outbox.apply_receipt(receipt) == (outbox, ReceiptOutcome())
