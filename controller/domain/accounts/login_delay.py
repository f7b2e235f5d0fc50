"""How long a sign-in waits after failures, by address and account. It is slowed, never locked out."""

from collections import OrderedDict
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")
FREE_OF_ADDRESS: Final = 3  # failures of an address before its sign-ins wait
FREE_OF_ACCOUNT: Final = 10  # failures of an account before its sign-ins wait
FIRST_DELAY: Final = 0.5  # seconds; doubled with each further failure
MAX_ADDRESS_DELAY: Final = 8.0  # seconds
MAX_ACCOUNT_DELAY: Final = 4.0  # seconds
FORGET: Final = 900.0  # seconds without a failure after which it counts no more
MAX_ENTRIES: Final = 4096  # addresses, and accounts; the one that failed longest ago is dropped first
_MAX_COUNT: Final = 64  # failures that are told apart


class LoginDelays:
    """Counts failed sign-ins. `now` is in monotonic seconds, `name` a login name as it was given.

    An address from which the account signed in is not slowed for what others do to the account.
    """

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._accounts: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def seconds(self, address: str, name: str, now: float) -> float:
        """How long a sign-in has to wait before its password is looked at."""
        own = _delay(_count(self._addresses, address, now), FREE_OF_ADDRESS, MAX_ADDRESS_DELAY)
        if (address, name.casefold()) in self._known:
            return own
        return max(own, _delay(self.failures(name, now), FREE_OF_ACCOUNT, MAX_ACCOUNT_DELAY))

    def failures(self, name: str, now: float) -> int:
        """How often sign-ins to this account failed lately."""
        return _count(self._accounts, name.casefold(), now)

    def failed(self, address: str, name: str, now: float) -> None:
        """Counts a failure; a name without an account counts too, or it would tell that there is none."""
        for entries, key in ((self._addresses, address), (self._accounts, name.casefold())):
            count = _count(entries, key, now)
            _put(entries, key, (min(count + 1, _MAX_COUNT), now))

    def succeeded(self, address: str, name: str) -> None:
        """Forgets the failures of the account; those of the address stay, whoever has an account there too."""
        self._accounts.pop(name.casefold(), None)
        _put(self._known, (address, name.casefold()), None)


def _count(entries: OrderedDict[str, tuple[int, float]], key: str, now: float) -> int:
    count, at = entries.get(key, (0, now))
    return count if now - at < FORGET else 0


def _put(entries: OrderedDict[K, V], key: K, value: V) -> None:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > MAX_ENTRIES:
        entries.popitem(last=False)


def _delay(failures: int, free: int, most: float) -> float:
    return 0.0 if failures < free else min(most, FIRST_DELAY * 2.0 ** (failures - free))
