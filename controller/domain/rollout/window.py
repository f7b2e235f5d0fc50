"""Maintenance windows: hours of the day in which a device may be updated, in its own time zone."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

ZONE_TAG: Final = "tz:"  # a device with the tag `tz:Europe/Berlin` is in that time zone
_TIME: Final = "([01][0-9]|2[0-3]):([0-5][0-9])"
WINDOW_PATTERN: Final = f"^{_TIME}-{_TIME}$"
_SHAPE: Final = re.compile(WINDOW_PATTERN)
_DAY: Final = 24 * 60  # minutes


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
    if window is None:
        return now
    local = datetime.fromtimestamp(now, time_zone_named(zone))
    minute = local.hour * 60 + local.minute
    if (minute - window.begin) % _DAY < window.minutes:
        return now
    opening = local.replace(hour=window.begin // 60, minute=window.begin % 60, second=0, microsecond=0)
    if opening <= local:
        opening = (opening.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=local.tzinfo)
    # A local time that the clocks skip may map to one that is not later than `now`.
    return max(opening.timestamp(), now + 1.0)
