"""How long a sign-in waits after failures, by address and account. It is slowed, never locked out."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")
FREE_OF_ADDRESS: Final = 3  # failures of an address before its sign-ins wait
FREE_OF_ACCOUNT: Final = 10  # failures of an account before its sign-ins wait
FIRST_DELAY: Final = 0.5  # seconds; doubled with each further failure
MAX_ADDRESS_DELAY: Final = 8.0  # seconds
MAX_ACCOUNT_DELAY: Final = 4.0  # seconds
FORGET: Final = 900.0  # seconds without a failure after which it counts no more
MAX_ENTRIES: Final = 4096  # addresses; the one that failed longest ago is dropped first
BUCKETS: Final = 32_768  # of names, which share a count: far more than fail within `FORGET`
_MAX_COUNT: Final = 64  # failures that are told apart


class LoginDelays:
    """Counts failed sign-ins. `now` is in monotonic seconds, `name` a login name as it was given.

    Names are counted by a hash with a secret `key`, so that strangers can neither choose names that push the count of
    an account out, nor names that share one. An address from which the account signed in is not slowed for what others
    do to the account.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._addresses: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._accounts: dict[int, tuple[int, float]] = {}
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def seconds(self, address: str, name: str, now: float) -> float:
        """How long a sign-in has to wait before its password is looked at."""
        own = _delay(_count(self._addresses, address, now), FREE_OF_ADDRESS, MAX_ADDRESS_DELAY)
        if self.is_known(address, name):
            return own
        return max(own, _delay(self.failures(name, now), FREE_OF_ACCOUNT, MAX_ACCOUNT_DELAY))

    def is_known(self, address: str, name: str) -> bool:
        """Whether this account signed in from this address."""
        return (address, name.casefold()) in self._known

    def failures(self, name: str, now: float) -> int:
        """How often sign-ins to this account failed lately."""
        return _count(self._accounts, self._bucket(name), now)

    def failed(self, address: str, name: str, now: float) -> None:
        """Counts a failure; a name without an account counts too, or it would tell that there is none."""
        of_address, of_name = _count(self._addresses, address, now), self.failures(name, now)
        _put(self._addresses, address, (min(of_address + 1, _MAX_COUNT), now))
        self._accounts[self._bucket(name)] = (min(of_name + 1, _MAX_COUNT), now)

    def succeeded(self, address: str, name: str) -> None:
        """Forgets the failures of the account; those of the address stay, whoever has an account there too."""
        self._accounts.pop(self._bucket(name), None)
        _put(self._known, (address, name.casefold()), None)

    def _bucket(self, name: str) -> int:
        text = name.casefold().encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self._key).digest()) % BUCKETS


def _count(entries: Mapping[K, tuple[int, float]], key: K, now: float) -> int:
    count, at = entries.get(key, (0, now))
    return count if now - at < FORGET else 0


def _put(entries: OrderedDict[K, V], key: K, value: V) -> None:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > MAX_ENTRIES:
        entries.popitem(last=False)


def _delay(failures: int, free: int, most: float) -> float:
    return 0.0 if failures < free else min(most, FIRST_DELAY * 2.0 ** (failures - free))
