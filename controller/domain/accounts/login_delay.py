"""How long a sign-in waits after failures, by address and account. It is slowed, never locked out."""

import hashlib
from collections import OrderedDict
from typing import Final

from controller.domain.accounts.failure_counts import MAX_KEYS, DelayRule, FailureCounts

FREE_OF_ADDRESS: Final = 3  # failures of an address before its sign-ins wait
FREE_OF_ACCOUNT: Final = 10  # failures of an account before its sign-ins wait
FIRST_DELAY: Final = 0.5  # seconds; doubled with each further failure
MAX_ADDRESS_DELAY: Final = 8.0  # seconds
MAX_ACCOUNT_DELAY: Final = 4.0  # seconds
FORGET: Final = 900.0  # seconds without a failure after which it counts no more
BUCKETS: Final = 32_768  # of names, which share a count: far more than fail within `FORGET`
_OF_ADDRESS: Final = DelayRule(FREE_OF_ADDRESS, FIRST_DELAY, MAX_ADDRESS_DELAY, FORGET)
_OF_ACCOUNT: Final = DelayRule(FREE_OF_ACCOUNT, FIRST_DELAY, MAX_ACCOUNT_DELAY, FORGET)


class LoginDelays:
    """Counts failed sign-ins. `now` is in monotonic seconds, `name` a login name as it was given.

    Names are counted by a hash with a secret `key`, so that strangers can neither choose names that push the count of
    an account out, nor names that share one. An address from which the account signed in is not slowed for what others
    do to the account.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._addresses = FailureCounts[str](_OF_ADDRESS)
        self._accounts = FailureCounts[int](_OF_ACCOUNT, BUCKETS)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def seconds(self, address: str, name: str, now: float, *, is_known: bool) -> float:
        """How long a sign-in has to wait before its password is looked at; `is_known`: see above."""
        own = self._addresses.delay(address, now)
        return own if is_known else max(own, self._accounts.delay(self._bucket(name), now))

    def is_known(self, address: str, name: str) -> bool:
        """Whether this account signed in from this address."""
        return (address, name.casefold()) in self._known

    def failures(self, name: str, now: float) -> int:
        """How often sign-ins to this account failed lately."""
        return self._accounts.count(self._bucket(name), now)

    def failed(self, address: str, name: str, now: float) -> None:
        """Counts a failure; a name without an account counts too, or it would tell that there is none."""
        self._addresses.record(address, now)
        self._accounts.record(self._bucket(name), now)

    def succeeded(self, address: str, name: str) -> None:
        """Forgets the failures of the account; those of the address stay, whoever has an account there too."""
        self._accounts.forget(self._bucket(name))
        place = address, name.casefold()
        self._known[place] = None
        self._known.move_to_end(place)
        if len(self._known) > MAX_KEYS:
            self._known.popitem(last=False)

    def _bucket(self, name: str) -> int:
        text = name.casefold().encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self._key).digest()) % BUCKETS
