"""How much of the fleet may be contained automatically within a while: a budget of all devices together, as a value.

One wrong policy, one bad update, one clever attacker must not take the fleet out. What is beyond the budget waits for
an operator, and while anything waits everything further waits too: else the fleet would go out slowly instead of fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

_NOBODY: Final[Mapping[str, float]] = MappingProxyType({})
WHOLE: Final = 100.0  # percent


@dataclass(frozen=True, slots=True)
class BlastRadiusLimits:
    """At most `max_devices`, and at most `max_percent` of the fleet, within `window` seconds. `None`: any number."""

    max_devices: int | None = None
    max_percent: float = WHOLE
    window: float = 3600.0

    def limit(self, fleet: int) -> int:
        """How many devices of a fleet of this size; never less than one, or a small fleet had no protection at all."""
        share = max(1, int(fleet * self.max_percent / WHOLE))
        return share if self.max_devices is None else min(self.max_devices, share)

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing is limited, so that nothing has to be counted."""
        return self.max_devices is None and self.max_percent >= WHOLE


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """What was contained automatically of late (device and Unix seconds, oldest first), and how many devices wait."""

    bounds: BlastRadiusLimits = BlastRadiusLimits()
    charged: Mapping[str, float] = field(default_factory=lambda: _NOBODY)
    waiting: int = 0

    def used(self, now: float) -> int:
        """Devices contained automatically within the window that ends now."""
        start = now - self.bounds.window
        return sum(1 for at in self.charged.values() if at > start)

    def counts(self, device_id: str, now: float) -> bool:
        """Whether the device is counted within the window already."""
        at = self.charged.get(device_id)
        return at is not None and at > now - self.bounds.window

    def allows(self, device_id: str, fleet: int, now: float) -> bool:
        """Whether one more may be contained. A device that was counted within the window is not counted twice."""
        if self.bounds.is_unlimited:
            return True
        if self.waiting:
            return False
        if self.counts(device_id, now):
            return True
        limit = self.bounds.limit(fleet)
        return len(self.charged) < limit or self.used(now) < limit

    def charge(self, device_id: str, now: float) -> "BlastRadius":
        """The same after one more; what the window has left behind is dropped."""
        if self.bounds.is_unlimited:
            return self
        if self.counts(device_id, now):
            return self
        start = now - self.bounds.window
        left = {one: at for one, at in self.charged.items() if at > start and one != device_id}
        return replace(self, charged={**left, device_id: now})

    def refund(self, device_id: str) -> "BlastRadius":
        """The same after a containment that was refused: claims without proof must not use the budget up."""
        if device_id not in self.charged:
            return self
        return replace(self, charged={one: at for one, at in self.charged.items() if one != device_id})
