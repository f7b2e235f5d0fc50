"""How long things last, as people write it: `90s`, `10m`, `2h`, `1d`."""

import re
from typing import Final

MAX_DURATION: Final = 366 * 86_400  # seconds
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # seconds
_SHAPE: Final = re.compile(r"([0-9]{1,8})([smhd])")


def parse_duration(text: str) -> float:
    """Seconds in `text`.

    Raises:
        ValueError: another shape, or longer than `MAX_DURATION`.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a number and s, m, h or d, as in 90s, 10m, 2h, 1d")
    seconds = int(match.group(1)) * _UNITS[match.group(2)]
    if seconds > MAX_DURATION:
        raise ValueError(f"{text!r} is too long: at most {MAX_DURATION // 86_400}d")
    return float(seconds)


def duration_text(seconds: float) -> str:
    """`seconds` in the largest unit that fits exactly, so that it reads back as the same duration."""
    whole = round(seconds)
    for unit in ("d", "h", "m"):
        if whole and whole % _UNITS[unit] == 0:
            return f"{whole // _UNITS[unit]}{unit}"
    return f"{whole}s"
