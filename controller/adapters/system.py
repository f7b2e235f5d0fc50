"""The system clock and the generator of ids."""

import secrets
import time
from typing import Final

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Two digits at a time: an id is made for every message.
_PAIRS: Final = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)
_PAIR_BITS: Final = 10
_SHIFTS: Final = tuple(range(120, -1, -_PAIR_BITS))  # of the 13 pairs of an id
_RANDOM_BITS: Final = 80
_MILLISECONDS: Final = 1000


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class UlidGenerator:
    """Generates ULIDs: 48 bits of milliseconds, 80 random bits, increasing within a millisecond too."""

    def __init__(self) -> None:
        self._last = 0

    def new(self, now: float) -> str:
        milliseconds = int(now * _MILLISECONDS)
        if milliseconds <= self._last >> _RANDOM_BITS:
            value = self._last + 1  # same millisecond, or a clock that went back
        else:
            value = (milliseconds << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        self._last = value
        return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])
