"""The replay window and the age limits of signed reports."""

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.containment.report_signatures import MAX_AHEAD, WINDOW, ReplayWindow, age_rejection_reason


@given(st.lists(st.integers(0, 300), max_size=80))
def test_each_number_is_accepted_once_and_none_below_the_window(numbers: list[int]) -> None:
    window, accepted = ReplayWindow(), set[int]()
    for seq in numbers:
        is_new = seq not in accepted and seq > window.highest - WINDOW
        assert (window.rejection_reason(seq) == "") is is_new
        if is_new:
            window = window.accept(seq)
            accepted.add(seq)
            assert window.highest == max(accepted)


def test_window_after_a_restart_rejects_numbers_up_to_the_last_report() -> None:
    window = ReplayWindow.starting_at(500)
    assert all(window.rejection_reason(seq) for seq in (500, 499, 440, 3))
    assert window.rejection_reason(501) == ""


def test_gap_counts_skipped_numbers() -> None:
    assert ReplayWindow().gap_before(77) == 0
    assert ReplayWindow.starting_at(5).gap_before(6) == 0
    assert ReplayWindow.starting_at(5).gap_before(9) == 3
    assert ReplayWindow.starting_at(5).gap_before(4) == 0


def test_reports_too_old_or_too_far_ahead_are_rejected() -> None:
    assert age_rejection_reason(1000.0, 1000.0, 60.0) == ""
    assert "delayed, or a wrong clock" in age_rejection_reason(1000.0, 1061.0, 60.0)
    assert age_rejection_reason(1000.0 + MAX_AHEAD, 1000.0, 60.0) == ""
    assert "clock is wrong" in age_rejection_reason(1001.0 + MAX_AHEAD, 1000.0, 60.0)
