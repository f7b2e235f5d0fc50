"""Maintenance windows: hours of the day in which a device may be changed, in its own time zone."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

ZONE_TAG: Final = "tz:"
"""A device's tag `tz:Europe/Berlin` says where it stands."""
_TIME: Final = "([01][0-9]|2[0-3]):([0-5][0-9])"
WINDOW_PATTERN: Final = f"^{_TIME}-{_TIME}$"
_SHAPE: Final = re.compile(WINDOW_PATTERN)
_DAY: Final = 24 * 60  # minutes


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """From `begin` to `end`, minutes of the day; over midnight where the end is the smaller one."""

    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.begin // 60:02d}:{self.begin % 60:02d}-{self.end // 60:02d}:{self.end % 60:02d}"

    @property
    def minutes(self) -> int:
        """How long it is open each day."""
        return (self.end - self.begin) % _DAY


def parse_window(text: str) -> MaintenanceWindow:
    """Read `02:00-05:00`.

    Raises:
        ValueError: another shape, or nothing between the two times.
    """
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a window: write it as 02:00-05:00")
    hours = [int(one) for one in match.groups()]
    window = MaintenanceWindow(hours[0] * 60 + hours[1], hours[2] * 60 + hours[3])
    if not window.minutes:
        raise ValueError(f"{text!r} is empty: a window has a beginning and another end")
    return window


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """The time zone of this name.

    Raises:
        ValueError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError(f"there is no time zone {name!r}: write it as Europe/Berlin") from e


def zone_of(tags: tuple[str, ...], default: str) -> str:
    """The time zone that a device's tags name, or `default` where they name none, or none that exists."""
    for tag in tags:
        if tag.startswith(ZONE_TAG):
            name = tag.removeprefix(ZONE_TAG)
            try:
                zone_named(name)
            except ValueError:
                return default
            return name
    return default


def opens_at(window: MaintenanceWindow | None, zone: str, now: float) -> float:
    """When a device in `zone` may be changed, Unix seconds: `now` while the window is open, else its next opening."""
    if window is None:
        return now
    here = datetime.fromtimestamp(now, zone_named(zone))
    minute = here.hour * 60 + here.minute
    if (minute - window.begin) % _DAY < window.minutes:
        return now
    opening = here.replace(hour=window.begin // 60, minute=window.begin % 60, second=0, microsecond=0)
    if opening <= here:
        opening = (opening.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=here.tzinfo)
    # A time that the clocks skip is read as the one after it: later than now in any case.
    return max(opening.timestamp(), now + 1.0)
