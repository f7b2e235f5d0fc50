"""Compares versions part by part, numbers as numbers: enough for the preconditions of updates."""

import re
from itertools import zip_longest
from typing import Final

_PART: Final = re.compile(r"\d+|[A-Za-z]+|~")
_Key = tuple[int, int, str]


def compare(one: str, other: str) -> int:
    """-1, 0 or 1; `1.10` is above `1.9`, `1.0~rc1` below `1.0`, `1.0` equal to `1.0.0`."""
    for left, right in zip_longest(_parts(one), _parts(other), fillvalue=(1, 0, "")):
        if left != right:
            return -1 if left < right else 1
    return 0


def _parts(version: str) -> list[_Key]:
    return [_key(part) for part in _PART.findall(version)]


def _key(part: str) -> _Key:
    if part == "~":
        return (-1, 0, "")
    # Letters stand before the end of a version (1.0rc1 < 1.0), and numbers behind it; 0 counts as the end.
    return (1, int(part), "") if part.isdigit() else (0, 0, part)
