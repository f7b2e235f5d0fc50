"""Durations of configurations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.durations import MAX_DURATION, duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("2h", 7200.0), ("1d", 86_400.0), ("0s", 0.0)]
)
def test_every_unit_is_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-1s", "1.5h", "1 h", "1H", "10m\n", "\u0661s", "999999999s", "367d"])
def test_other_texts_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|too long"):
        parse_duration(text)


@given(st.integers(0, MAX_DURATION))
def test_formatted_durations_are_parsed(seconds: int) -> None:
    assert parse_duration(duration_text(seconds)) == seconds
