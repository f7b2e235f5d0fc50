"""Counts failures by key, and how long the next attempt waits for them. It is slowed, never locked out. Pure."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
MAX_KEYS: Final = 4096  # the one that failed longest ago is dropped first
_MAX_EXPONENT: Final = 32  # beyond every longest delay


@dataclass(frozen=True, slots=True)
class DelayRule:
    """From the failure number `begins_at` on an attempt waits `first` seconds, doubled with each further one.

    `most`: the longest delay; `forget`: seconds without a failure after which none counts any more.
    """

    begins_at: int
    first: float
    most: float
    forget: float

    def delay(self, failures: int) -> float:
        """Seconds between the last of so many failures and the next attempt."""
        if failures < self.begins_at:
            return 0.0
        return min(self.most, self.first * 2.0 ** min(failures - self.begins_at, _MAX_EXPONENT))


class FailureCounts(Generic[K]):
    """Failures by key, in memory; `now` in seconds, monotonic."""

    def __init__(self, rule: DelayRule, max_keys: int = MAX_KEYS) -> None:
        self._rule = rule
        self._max_keys = max_keys
        self._failures: OrderedDict[K, tuple[int, float]] = OrderedDict()

    def count(self, key: K, now: float) -> int:
        """How often this key failed lately."""
        count, at = self._failures.get(key, (0, now))
        return count if now - at < self._rule.forget else 0

    def delay(self, key: K, now: float) -> float:
        """The seconds that an attempt of this key waits, whenever the last one was."""
        return self._rule.delay(self.count(key, now))

    def wait(self, key: K, now: float) -> float:
        """The seconds until this key may try again, 0 if it may now."""
        _, at = self._failures.get(key, (0, now))
        return max(0.0, at + self.delay(key, now) - now)

    def record(self, key: K, now: float) -> int:
        """Counts a failure; returns how many there are of this key now."""
        count = self.count(key, now) + 1
        self._failures[key] = (count, now)
        self._failures.move_to_end(key)
        if len(self._failures) > self._max_keys:
            self._failures.popitem(last=False)
        return count

    def take_back(self, key: K) -> None:
        """Forgets the last failure: it was none."""
        count, at = self._failures.get(key, (0, 0.0))
        if count > 1:
            self._failures[key] = (count - 1, at)
        else:
            self.forget(key)

    def forget(self, key: K) -> None:
        """Forgets all failures of this key."""
        self._failures.pop(key, None)
