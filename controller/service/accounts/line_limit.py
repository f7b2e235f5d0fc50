"""Bounds the audit lines that people write about themselves at will: by signing in and out, and with wrong factors."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from controller.domain.accounts.failure_counts import MAX_KEYS

MAX_LINES: Final = 10  # of one key in a minute
_MINUTE: Final = 60.0  # seconds


@dataclass(slots=True)
class _Lines:
    minute: int
    count: int = 0
    left_out: int = 0


class LineLimit:
    """Of each key `MAX_LINES` lines a minute are recorded; the last one says that further ones are only counted.

    The next line of the key has their number, so that a flood is seen and hides nothing for long.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Lines] = OrderedDict()

    def admit(self, key: str, now: float) -> dict[str, object] | None:
        """What is added to the detail of this line; None if it is not recorded. `now` in seconds, monotonic."""
        minute, found = int(now // _MINUTE), self._lines.pop(key, None)
        if found is None or found.minute != minute:
            found = _Lines(minute, 0, 0 if found is None else found.left_out)
        self._lines[key] = found
        if len(self._lines) > MAX_KEYS:
            self._lines.popitem(last=False)
        found.count += 1
        if found.count > MAX_LINES:
            found.left_out += 1
            return None
        more: dict[str, object] = {"more_since_the_last_line": found.left_out} if found.left_out else {}
        found.left_out = 0
        return {**more, "further_ones_are_counted": True} if found.count == MAX_LINES else more
