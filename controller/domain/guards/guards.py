"""What stands between a finding and a containment, beside the device itself: values that a step is given."""

from dataclasses import dataclass, field
from typing import Final

from controller.domain.device import Device
from controller.domain.guards.blast_radius import BlastRadius
from controller.domain.guards.waivers import NO_WAIVERS, Waivers

PROTECTED_PREDICATE: Final = "protected"  # among a device's marks where the expression of `protected_if` holds


@dataclass(frozen=True, slots=True)
class ProtectionRules:
    """Devices that are never contained automatically: by id, by tag, or by the expression behind `PROTECTED_MARK`."""

    devices: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    def protection_reason(self, device: Device) -> str:
        """What protects this device, in words; empty where nothing does."""
        if device.device_id in self.devices:
            return "its id is in guards.protected_devices"
        tags = self.tags.intersection(device.tags) if self.tags else ()
        if tags:
            return f"its tag {min(tags)} is in guards.protected_tags"
        return "guards.protected_if holds for it" if PROTECTED_PREDICATE in device.predicates else ""


@dataclass(frozen=True, slots=True)
class FleetGuards:
    """`fleet`: how many devices there are. `fresh_for`: seconds after its last word in which time may contain a device.
    `must_answer`: no report frees a device unless it answers the nonce of its case, however old the agent is.

    The default guards nothing.
    """

    radius: BlastRadius = field(default_factory=BlastRadius)
    fleet: int = 0
    protection: ProtectionRules = ProtectionRules()
    waivers: Waivers = NO_WAIVERS
    fresh_for: float = float("inf")
    must_answer: bool = False


NO_GUARDS: Final = FleetGuards()
