"""Maintenance windows in local time, also on days when the clocks change."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.rollout.window import (
    MaintenanceWindow,
    check_zone_tag,
    closes_at,
    opens_at,
    parse_window,
    zone_of,
)

DAY = 86_400.0  # seconds
MINUTES = st.integers(min_value=0, max_value=1439)
# Of these one changes its clocks by half an hour, one skipped a whole day.
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"])


def timestamp(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "opening"),
    [
        ("02:00-05:00", "2026-11-23T02:00:00", "2026-11-23T02:00:00"),
        ("02:00-05:00", "2026-11-23T04:59:59", "2026-11-23T04:59:59"),
        ("02:00-05:00", "2026-11-23T05:00:00", "2026-11-24T02:00:00"),
        ("02:00-05:00", "2026-11-23T01:00:00", "2026-11-23T02:00:00"),
        ("22:00-01:00", "2026-11-23T00:30:00", "2026-11-23T00:30:00"),
        ("22:00-01:00", "2026-11-23T12:00:00", "2026-11-23T22:00:00"),
        # Start of daylight saving time: 02:30 does not exist.
        ("02:30-05:00", "2026-03-29T01:59:00", "2026-03-29T03:00:00"),
        ("02:30-02:45", "2026-03-29T01:59:00", "2026-03-29T03:00:00"),
        ("02:30-02:45", "2026-03-29T03:14:00", "2026-03-29T03:14:00"),
        ("02:30-02:45", "2026-03-29T03:15:00", "2026-03-30T02:30:00"),
        ("02:00-03:00", "2026-03-29T01:59:00", "2026-03-29T03:00:00"),
        ("01:30-02:30", "2026-03-29T03:00:00", "2026-03-30T01:30:00"),
        # Its end: the window opens once, with the first 02:30.
        ("02:30-02:45", "2026-10-25T02:50:00", "2026-10-26T02:30:00"),
    ],
)
def test_window_is_in_the_local_time_of_the_device(window: str, now: str, opening: str) -> None:
    assert opens_at(parse_window(window), "Europe/Berlin", timestamp(now)) == timestamp(opening)


def test_time_zone_is_taken_from_the_tags() -> None:
    assert opens_at(None, "UTC", 5.0) == 5.0
    noon = datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp()
    assert opens_at(parse_window("21:00-22:00"), "Asia/Tokyo", noon) == noon
    assert zone_of(("x", "tz:Asia/Tokyo"), "UTC") == "Asia/Tokyo"
    assert zone_of(("tz:Nowhere/Town",), "UTC") == "UTC"
    assert zone_of(("tz:../../etc/passwd",), "UTC") == "UTC"


@pytest.mark.parametrize("text", ["2-5", "02:00-02:00", "24:00-01:00", "02:00", ""])
def test_invalid_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="window"):
        parse_window(text)


@given(
    window=st.builds(MaintenanceWindow, MINUTES, MINUTES).filter(lambda window: window.minutes > 0),
    zone=ZONES,
    now=st.integers(min_value=1_300_000_000, max_value=1_900_000_000),
)
def test_window_opens_before_it_closes_and_stays_open_in_between(
    window: MaintenanceWindow, zone: str, now: int
) -> None:
    opening = opens_at(window, zone, now)
    closing = closes_at(window, zone, opening)
    assert now <= opening < closing <= now + 3 * DAY
    for moment in (opening, (opening + closing) // 2, closing - 1):
        assert opens_at(window, zone, moment) == moment
        assert closes_at(window, zone, moment) == closing
    if opening > now:
        assert opens_at(window, zone, opening - 1) == opening
    assert opens_at(window, zone, closing) > closing or window.minutes > 1380


def test_no_window_never_closes() -> None:
    assert closes_at(None, "UTC", 5.0) == float("inf")


@pytest.mark.parametrize("tag", ["tz:Europe/Berlin", "tz:UTC", "ring:test", "tz"])
def test_tag_of_an_existing_zone_is_kept(tag: str) -> None:
    assert check_zone_tag(tag) == tag


@pytest.mark.parametrize("tag", ["tz:Europe/Berln", "tz:europe", "tz:", "tz:../../etc/passwd", "tz:Berlin"])
def test_tag_of_a_zone_that_does_not_exist_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        check_zone_tag(tag)
