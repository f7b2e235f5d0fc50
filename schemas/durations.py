"""Durations in configurations and options: a whole number and a unit, as in `90s`, `10m`, `2h`, `1d`."""

import re
from typing import Final

MAX_DURATION: Final = 366 * 86_400  # seconds
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}  # seconds
_SHAPE: Final = re.compile(r"([0-9]{1,8})(ms|s|m|h|d)")


def parse_duration(text: str, *, milliseconds: bool = False) -> float:
    """Returns the seconds in `text`; `milliseconds` also allows the unit `ms`.

    Raises:
        ValueError: another format, or longer than `MAX_DURATION`.
    """
    match = _SHAPE.fullmatch(text)
    if match is None or (match[2] == "ms" and not milliseconds):
        raise ValueError(f"{text!r} is not a duration: write a number and s, m, h or d, as in 90s, 10m, 2h, 1d")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > MAX_DURATION:
        raise ValueError(f"{text!r} is too long: at most {MAX_DURATION // 86_400}d")
    return float(seconds)


def duration_text(seconds: float, *, milliseconds: bool = False) -> str:
    """Returns `seconds` in the largest unit that represents them exactly; `parse_duration` reads the text back.

    Fractions of a second are rounded, except with `milliseconds`.
    """
    if milliseconds and seconds != int(seconds):
        return f"{seconds * 1000:.0f}ms"
    whole = round(seconds)
    for unit in ("d", "h", "m"):
        if whole and whole % _UNITS[unit] == 0:
            return f"{whole // int(_UNITS[unit])}{unit}"
    return f"{whole}s"
