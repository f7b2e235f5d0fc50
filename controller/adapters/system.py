"""The real clock and the real source of ids."""

import base64
import secrets
import time
from typing import Final

# Crockford's base 32, reached from the standard alphabet by a table: an id is made for every message.
_CROCKFORD: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")
_RANDOM_BITS: Final = 80
_LENGTH: Final = 26
_MILLISECONDS: Final = 1000
# 26 digits are 130 bits, two more than an id has; base 32 encodes whole groups of 20 bytes without padding.
_ENCODED_BYTES: Final = 20
_SHIFT: Final = _ENCODED_BYTES * 8 - 130


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
        milliseconds = int(now * _MILLISECONDS)
        if milliseconds <= self._last >> _RANDOM_BITS:
            value = self._last + 1  # same millisecond, or a clock that went back
        else:
            value = (milliseconds << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        self._last = value
        encoded = base64.b32encode((value << _SHIFT).to_bytes(_ENCODED_BYTES, "big"))
        return encoded[:_LENGTH].translate(_CROCKFORD).decode()
