"""Maintenance windows: hours of the day in which a device may be updated, in its own time zone."""

import math
import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

ZONE_TAG: Final = "tz:"  # a device with the tag `tz:Europe/Berlin` is in that time zone
_TIME: Final = "([01][0-9]|2[0-3]):([0-5][0-9])"
WINDOW_PATTERN: Final = f"^{_TIME}-{_TIME}$"
_SHAPE: Final = re.compile(WINDOW_PATTERN)
_DAY: Final = 24 * 60  # minutes
_SECONDS: Final = 60  # in a minute
_MOST_DAYS: Final = 4  # in which a window opens, also where a zone skips a whole day


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A daily window from `begin` to `end`, in minutes of the day; it spans midnight if `end` is smaller."""

    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.begin // 60:02d}:{self.begin % 60:02d}-{self.end // 60:02d}:{self.end % 60:02d}"

    @property
    def minutes(self) -> int:
        """Length of the window."""
        return (self.end - self.begin) % _DAY


def parse_window(text: str) -> MaintenanceWindow:
    """Parses `02:00-05:00`.

    Raises:
        ValueError: the text has another form, or begin and end are equal.
    """
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a window: write it as 02:00-05:00")
    begin_hour, begin_minute, end_hour, end_minute = map(int, match.groups())
    window = MaintenanceWindow(begin_hour * 60 + begin_minute, end_hour * 60 + end_minute)
    if not window.minutes:
        raise ValueError(f"{text!r} is empty: a window needs two different times")
    return window


@lru_cache(maxsize=1024)
def time_zone_named(name: str) -> ZoneInfo:
    """Returns the time zone with an IANA name.

    Raises:
        ValueError: there is no such time zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError(f"there is no time zone {name!r}: write it as Europe/Berlin") from e


def check_zone_tag(tag: str) -> str:
    """Returns the tag; one that names a time zone has to name an existing one.

    Raises:
        ValueError: there is no such time zone.
    """
    if tag.startswith(ZONE_TAG):
        time_zone_named(tag.removeprefix(ZONE_TAG))
    return tag


def zone_of(tags: tuple[str, ...], default: str) -> str:
    """Returns the name of the time zone in a device's tags; `default` if there is none or it does not exist."""
    for tag in tags:
        if tag.startswith(ZONE_TAG):
            name = tag.removeprefix(ZONE_TAG)
            try:
                time_zone_named(name)
            except ValueError:
                return default
            return name
    return default


def opens_at(window: MaintenanceWindow | None, zone: str, now: float) -> float:
    """Returns when a device in `zone` may be updated, Unix seconds: `now` in the window, else its next opening."""
    return now if window is None else max(now, _span(window, zone, now)[0])


def closes_at(window: MaintenanceWindow | None, zone: str, now: float) -> float:
    """Returns when the window that is open at `now` closes, Unix seconds; infinity without a window."""
    return math.inf if window is None else _span(window, zone, now)[1]


def _span(window: MaintenanceWindow, zone: str, now: float) -> tuple[float, float]:
    """Returns begin and end of the window that is open at `now`, or of the next one, Unix seconds."""
    today = datetime.fromtimestamp(now, time_zone_named(zone)).date()
    for days in range(-1, _MOST_DAYS):
        day = today + timedelta(days)
        begin = _instant(zone, day, window.begin)
        end = _instant(zone, day + timedelta(window.end < window.begin), window.end)
        if end <= begin:  # the clocks skip all of it
            end = begin + window.minutes * _SECONDS
        if end > now:
            break
    return begin, end


@lru_cache(maxsize=4096)
def _instant(zone: str, day: date, minute: int) -> float:
    """Returns when it is `minute` of `day` in a zone, Unix seconds.

    Of a time that comes twice it is the first; a time that the clocks skip comes when they have.
    """
    local = datetime.combine(day, time(minute // 60, minute % 60), time_zone_named(zone))
    found = local.timestamp()
    if datetime.fromtimestamp(found, local.tzinfo).replace(tzinfo=None) == local.replace(tzinfo=None):
        return found
    before, after = int(local.replace(fold=1).timestamp()), int(found)
    offset = datetime.fromtimestamp(after, local.tzinfo).utcoffset()
    seconds = range(before, after + 1)
    return float(seconds[bisect_left(seconds, True, key=lambda at: _offset(at, local) == offset)])


def _offset(at: int, local: datetime) -> timedelta | None:
    return datetime.fromtimestamp(at, local.tzinfo).utcoffset()
