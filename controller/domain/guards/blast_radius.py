"""Blast radius: how many devices may be contained automatically within a time window, for the whole fleet.

It keeps one wrong policy, bad update or attacker from containing the whole fleet. Containments beyond the limit become
pending until an operator decides; while any is pending all further ones are too, because otherwise the fleet would be
contained slowly instead of fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

_NO_DEVICES: Final[Mapping[str, float]] = MappingProxyType({})
WHOLE: Final = 100.0  # percent


@dataclass(frozen=True, slots=True)
class BlastRadiusLimits:
    """At most `max_devices` (`None`: any number) and `max_percent` of the fleet within `window` seconds."""

    max_devices: int | None = None
    max_percent: float = WHOLE
    window: float = 3600.0

    def limit(self, fleet: int) -> int:
        """Returns the limit for a fleet of this size, at least one device."""
        share = max(1, int(fleet * self.max_percent / WHOLE))
        return share if self.max_devices is None else min(self.max_devices, share)

    @property
    def is_unlimited(self) -> bool:
        return self.max_devices is None and self.max_percent >= WHOLE


@dataclass(frozen=True, slots=True)
class RadiusCheck:
    """What decisions took for granted of one pool, to be checked against what all controllers have stored.

    `since`: Unix seconds, begin of the window. `admitted`: at most `limit` devices were contained, and none waits.
    `is_full`: as many were, or one waits. `held`: devices that these decisions themselves hold back.
    """

    ledger: str  # of the charges
    pool: str
    since: float
    limit: int
    admitted: bool = False
    is_full: bool = False
    held: frozenset[str] = frozenset()

    def holds(self, used: int, *, waits: bool) -> bool:
        """Whether it is so; `used`: charges within the window, with those of the decisions, `waits`: others wait."""
        is_exceeded = self.admitted and (waits or used > self.limit)
        return not is_exceeded and (not self.is_full or waits or used >= self.limit)


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """The devices that were contained automatically.

    `charged`: device ids and when they were contained (Unix seconds), oldest first. `waiting`: pending containments.
    """

    bounds: BlastRadiusLimits = BlastRadiusLimits()
    charged: Mapping[str, float] = field(default_factory=lambda: _NO_DEVICES)
    waiting: int = 0

    def used(self, now: float) -> int:
        """Returns how many devices were contained within the window that ends at `now`."""
        start = now - self.bounds.window
        return sum(1 for at in self.charged.values() if at > start)

    def counts(self, device_id: str, now: float) -> bool:
        """Whether the device counts within the window already."""
        at = self.charged.get(device_id)
        return at is not None and at > now - self.bounds.window

    def allows(self, device_id: str, fleet: int, now: float) -> bool:
        """Whether the device may be contained. A device that counts already is not counted twice."""
        if self.bounds.is_unlimited:
            return True
        if self.waiting:
            return False
        if self.counts(device_id, now):
            return True
        limit = self.bounds.limit(fleet)
        return len(self.charged) < limit or self.used(now) < limit

    def charge(self, device_id: str, now: float) -> "BlastRadius":
        """Returns the blast radius with the device counted, without those that left the window."""
        if self.bounds.is_unlimited:
            return self
        if self.counts(device_id, now):
            return self
        start = now - self.bounds.window
        recent = {other: at for other, at in self.charged.items() if at > start and other != device_id}
        return replace(self, charged={**recent, device_id: now})

    def refund(self, device_id: str) -> "BlastRadius":
        """Returns the blast radius without the device, whose containment was refused: unauthenticated reports must not
        use up the limit.
        """
        if device_id not in self.charged:
            return self
        return replace(self, charged={other: at for other, at in self.charged.items() if other != device_id})
