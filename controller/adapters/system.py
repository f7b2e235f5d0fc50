"""The real clock and the real source of ids."""

import secrets
import time
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_RANDOM_BITS: Final = 80
_LENGTH: Final = 26
_MILLISECONDS: Final = 1000


class SystemClock:
    """`Clock` of this machine."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class UlidIds:
    """`Ids` as ULIDs: 48 bits of milliseconds, 80 random bits, growing within a millisecond too."""

    def __init__(self) -> None:
        self._last = 0

    def new(self, now: float) -> str:
        value = (int(now * _MILLISECONDS) << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        if value <= self._last:
            value = self._last + 1  # same millisecond, or a clock that went back
        self._last = value
        digits = []
        for _ in range(_LENGTH):
            value, digit = divmod(value, 32)
            digits.append(_ALPHABET[digit])
        return "".join(reversed(digits))
