"""The fleet's guards as values: limits that hold automatic containments back."""

from dataclasses import dataclass, field
from typing import Final

from controller.domain.device import Device
from controller.domain.guards.blast_radius import BlastRadius
from controller.domain.guards.waivers import NO_WAIVERS, Waivers

PROTECTED_PREDICATE: Final = "protected"  # name of the predicate that `guards.protected_if` defines


@dataclass(frozen=True, slots=True)
class ProtectionRules:
    """Devices that are never contained automatically: by id, by tag, or because the device predicate
    `PROTECTED_PREDICATE` holds.
    """

    devices: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    def protection_reason(self, device: Device) -> str:
        """Returns why the device is protected, empty if it is not."""
        if device.device_id in self.devices:
            return "its id is in guards.protected_devices"
        tags = self.tags.intersection(device.tags) if self.tags else ()
        if tags:
            return f"its tag {min(tags)} is in guards.protected_tags"
        return "guards.protected_if holds for it" if PROTECTED_PREDICATE in device.predicates else ""


@dataclass(frozen=True, slots=True)
class FleetGuards:
    """Everything about the fleet that a step takes into account. The default guards nothing.

    `fleet`: number of devices. `fresh_for`: seconds after the last contact in which a deadline may contain a device.
    `must_answer`: only an answered nonce releases a device, even if its agent knows no nonces.
    """

    radius: BlastRadius = field(default_factory=BlastRadius)
    fleet: int = 0
    protection: ProtectionRules = ProtectionRules()
    waivers: Waivers = NO_WAIVERS
    fresh_for: float = float("inf")
    must_answer: bool = False


NO_GUARDS: Final = FleetGuards()
