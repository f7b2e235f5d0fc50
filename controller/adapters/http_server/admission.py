"""How many connections a listener admits, in all and per address; pure."""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.client_address import counted_as, parse_address

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

NEW_PER_ADDRESS: Final = 50  # connections of one address that are admitted in a second
MIN_CONNECTIONS: Final = 16  # of a listener, however few descriptors there are


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """`total` and `per_address` are numbers of connections; for clients in `proxies` only `total` applies."""

    total: int
    per_address: int
    proxies: tuple[IpNetwork, ...] = ()


def share_descriptors(wanted: Sequence[ConnectionLimits], available: int) -> tuple[ConnectionLimits, ...]:
    """Returns the limits of all listeners, reduced in proportion where there are not enough descriptors.

    Each listener has its share for itself, so that a full one takes nothing from the others.

    Raises:
        ValueError: not even `MIN_CONNECTIONS` for each.
    """
    if available < MIN_CONNECTIONS * len(wanted):
        raise ValueError(f"{available} descriptors for {len(wanted)} listeners")
    asked = sum(limits.total for limits in wanted)
    if asked <= available:
        return tuple(wanted)
    spare = available - MIN_CONNECTIONS * len(wanted)
    shares = (MIN_CONNECTIONS + spare * limits.total // asked for limits in wanted)
    return tuple(
        replace(limits, total=min(share, limits.total), per_address=min(share, limits.per_address))
        for limits, share in zip(wanted, shares, strict=True)
    )


class AddressCounts:
    """Counts the connections of each address; an IPv6 address counts as its /64."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._new: Counter[str] = Counter()  # in this second

    def begin_second(self) -> None:
        """Forgets the new connections of the last second."""
        self._new.clear()

    def is_too_fast(self, address: str) -> bool:
        """Counts a new connection; whether the address opened more than `NEW_PER_ADDRESS` in this second."""
        key = self._key(address)
        if key is None:
            return False
        self._new[key] += 1
        return self._new[key] > NEW_PER_ADDRESS

    def take(self, address: str) -> bool:
        """Counts a connection; False, without counting it, at the limit."""
        key = self._key(address)
        if key is not None:
            if self._open[key] >= self._limits.per_address:
                return False
            self._open[key] += 1
        return True

    def release(self, address: str) -> None:
        """Counts a connection that ended."""
        key = self._key(address)
        if key is None:
            return
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]

    def _key(self, address: str) -> str | None:
        """What is counted; None for a proxy."""
        parsed = parse_address(address)
        is_proxy = parsed is not None and any(parsed in network for network in self._limits.proxies)
        return None if is_proxy else counted_as(address)
