"""Slows those who guess: after some failures each further one costs a growing wait. Nobody is locked out for good."""

from collections import OrderedDict
from typing import Final

FREE_FAILURES: Final = 4  # without a wait: people mistype
GUESSING: Final = 10  # failures in a row after which an account is said to be attacked
FIRST_WAIT: Final = 2.0  # seconds, doubled with each further failure
MAX_WAIT: Final = 300.0  # seconds
FORGOTTEN_AFTER: Final = 3_600.0  # seconds without a failure
MAX_LINES: Final = 10  # of one key in a minute
MAX_KEYS: Final = 4096  # the one that failed longest ago is dropped first


class AttemptDelays:
    """Failures by key, in memory; `now` in seconds, monotonic."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """The seconds until this key may try again, 0 if it may now."""
        count, at = self._failures.get(key, (0, now))
        if count <= FREE_FAILURES or now - at >= FORGOTTEN_AFTER:
            return 0.0
        exponent = min(count - FREE_FAILURES - 1, 16)  # beyond `MAX_WAIT` in any case
        return max(0.0, at + min(FIRST_WAIT * 2.0**exponent, MAX_WAIT) - now)

    def record_failure(self, key: str, now: float) -> int:
        """Returns how many there are of this key now, this one included."""
        count, at = self._failures.pop(key, (0, now))
        count = 1 if now - at >= FORGOTTEN_AFTER else count + 1
        self._failures[key] = (count, now)
        if len(self._failures) > MAX_KEYS:
            self._failures.popitem(last=False)
        return count

    def take_back(self, key: str) -> None:
        """Forgets the last failure: it was none."""
        count, at = self._failures.get(key, (0, 0.0))
        if count > 1:
            self._failures[key] = (count - 1, at)
        else:
            self._failures.pop(key, None)

    def record_success(self, key: str) -> None:
        self._failures.pop(key, None)


class FailureLines:
    """How many failures of a key are recorded: whoever has a password must not fill the record with them."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, tuple[int, int]] = OrderedDict()  # the minute, and lines in it

    def take(self, key: str, now: float) -> bool:
        """Whether this failure is recorded, as one of at most `MAX_LINES` a minute."""
        minute = int(now // 60)
        last, count = self._lines.pop(key, (minute, 0))
        count = count + 1 if last == minute else 1
        self._lines[key] = (minute, count)
        if len(self._lines) > MAX_KEYS:
            self._lines.popitem(last=False)
        return count <= MAX_LINES
