"""What the device owes, and when it goes out again."""

from typing import Any

from device_agent.domain.report_outbox import MAX_OWED, PendingReport, ReceiptOutcome, ReportOutbox
from schemas.events import ReportReceipt


def _owed(seq: int, digest: str = "") -> PendingReport:
    return PendingReport(seq=seq, digest=digest or f"digest-{seq}", payload="{}")


def _receipt(**fields: Any) -> ReportReceipt:
    return ReportReceipt.model_validate({"v": 1, **fields})


def _with(*seqs: int) -> ReportOutbox:
    outbox = ReportOutbox()
    for seq in seqs:
        outbox = outbox.owe(_owed(seq))
    return outbox


def test_a_new_report_is_due_at_once_and_then_after_its_time_out_which_doubles() -> None:
    outbox = _with(1)
    assert [report.seq for report in outbox.due(0.0, timeout=10)] == [1]
    outbox = outbox.sent(1, 0.0)
    assert outbox.due(9.9, timeout=10) == ()
    assert outbox.next_due(timeout=10) == 10.0
    outbox = outbox.sent(1, 10.0)
    assert outbox.next_due(timeout=10) == 30.0
    for _ in range(60):
        outbox = outbox.sent(1, 0.0)
    assert outbox.next_due(timeout=10) == 100.0
    assert ReportOutbox().next_due(timeout=10) is None


def test_after_a_reconnect_everything_is_due() -> None:
    outbox = _with(1, 2).sent(1, 0.0).sent(2, 0.0).reconnected()
    assert [report.seq for report in outbox.due(0.0, timeout=10)] == [1, 2]


def test_the_oldest_are_dropped_and_counted() -> None:
    outbox = _with(*range(MAX_OWED + 3))
    assert [report.seq for report in outbox.owed] == list(range(3, MAX_OWED + 3))
    assert outbox.dropped == 3
    assert outbox.told(2).dropped == 1
    assert outbox.told(9).dropped == 0


def test_an_accepted_report_settles_the_older_ones() -> None:
    outbox, settled = _with(1, 2, 3).settle(_receipt(seq=2, verdict="accepted"))
    assert [report.seq for report in outbox.owed] == [3]
    assert settled.accepted == "digest-2"


def test_a_receipt_for_something_else_changes_nothing() -> None:
    before = _with(5)
    outbox, settled = before.settle(_receipt(seq=9, verdict="accepted"))
    assert outbox == before
    assert settled.accepted is None


def test_a_rejected_report_is_given_up_with_its_reason() -> None:
    outbox, settled = _with(1, 2).settle(_receipt(seq=1, verdict="rejected", reason="invalid", detail="os.id"))
    assert [report.seq for report in outbox.owed] == [2]
    assert settled.rejected == "invalid: os.id"


def test_a_rejection_of_nothing_in_particular_means_the_oldest_under_way() -> None:
    nothing = _receipt(seq=None, verdict="rejected", reason="malformed")
    assert _with(1, 2).settle(nothing)[0].owed == _with(1, 2).owed
    outbox, settled = _with(1, 2).sent(2, 0.0).settle(nothing)
    assert [report.seq for report in outbox.owed] == [1]
    assert settled.rejected == "malformed"


def test_a_controller_that_has_no_room_now_is_asked_again_later() -> None:
    outbox = _with(1, 2).sent(1, 0.0)
    for seq in (1, None):
        after, settled = outbox.settle(_receipt(seq=seq, verdict="rejected", reason="too_many", detail="later"))
        assert (after, settled.deferred, settled.rejected) == (outbox, "too_many: later", None)


def test_resend_full_is_asked_for_without_settling_anything() -> None:
    outbox, settled = _with(1).settle(_receipt(seq=7, verdict="resend_full"))
    assert settled.resend
    assert outbox == _with(1)


def test_a_newer_report_that_says_the_same_replaces_the_newest_only() -> None:
    outbox = ReportOutbox().owe(_owed(1, "a")).owe(_owed(2, "b"))
    assert [report.seq for report in outbox.without("b").owed] == [1]
    assert [report.seq for report in outbox.without("a").owed] == [1, 2]


def test_what_is_said_of_another_message_changes_nothing() -> None:
    box = ReportOutbox().owe(_owed(1)).sent(1, 0.0)
    receipt = _receipt(seq=None, verdict="rejected", reason="malformed", about="event")
    assert box.settle(receipt) == (box, ReceiptOutcome())
