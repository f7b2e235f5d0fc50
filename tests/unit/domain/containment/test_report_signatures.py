"""Numbers once each, in a window, and ages within bounds."""

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.containment.report_signatures import MAX_AHEAD, WINDOW, ReplayWindow, age_trouble


@given(st.lists(st.integers(0, 300), max_size=80))
def test_no_number_is_taken_twice_and_none_from_behind_the_window(numbers: list[int]) -> None:
    window, taken = ReplayWindow(), set[int]()
    for seq in numbers:
        is_new = seq not in taken and seq > window.highest - WINDOW
        assert (window.trouble(seq) == "") is is_new
        if is_new:
            window = window.take(seq)
            taken.add(seq)
            assert window.highest == max(taken)


def test_after_a_start_everything_up_to_the_last_report_was_taken() -> None:
    window = ReplayWindow.after(500)
    assert all(window.trouble(seq) for seq in (500, 499, 440, 3))
    assert window.trouble(501) == ""


def test_missing() -> None:
    assert ReplayWindow().missing(77) == 0
    assert ReplayWindow.after(5).missing(6) == 0
    assert ReplayWindow.after(5).missing(9) == 3
    assert ReplayWindow.after(5).missing(4) == 0


def test_ages() -> None:
    assert age_trouble(1000.0, 1000.0, 60.0) == ""
    assert "held back, or a wrong clock" in age_trouble(1000.0, 1061.0, 60.0)
    assert age_trouble(1000.0 + MAX_AHEAD, 1000.0, 60.0) == ""
    assert "clock is wrong" in age_trouble(1001.0 + MAX_AHEAD, 1000.0, 60.0)
