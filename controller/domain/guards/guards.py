"""The fleet's guards as values: limits that hold automatic containments back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from controller.domain.device import Device, HoldReason
from controller.domain.guards.blast_radius import BlastRadius
from controller.domain.guards.waivers import NO_WAIVERS, Waivers

NEWCOMER_FOR: Final = 7 * 86_400.0  # seconds after its first message in which a device has no part in the fleet's limit
ESTABLISHED: Final = ""  # the pool of all devices that are not new
NEW_DEVICES: Final = "new"  # the pool of new devices that no enrolment token admitted
TOKEN_POOL: Final = "token:"  # noqa: S105 - a prefix, followed by the enrolment token that admitted new devices
_NO_POOLS: Final[Mapping[str, BlastRadius]] = MappingProxyType({})
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
    `must_answer`: only an answered nonce releases a device, even if its agent knows no nonces. `radius`: the blast
    radius of established devices, `pools`: those of new devices by pool. `began_at`: when the oldest device was first
    seen (Unix seconds; infinite: unknown).
    """

    radius: BlastRadius = field(default_factory=BlastRadius)
    fleet: int = 0
    protection: ProtectionRules = ProtectionRules()
    waivers: Waivers = NO_WAIVERS
    fresh_for: float = float("inf")
    must_answer: bool = False
    pools: Mapping[str, BlastRadius] = field(default_factory=lambda: _NO_POOLS)
    began_at: float = float("inf")

    def pool_of(self, device: Device, now: float) -> str:
        """Returns the pool that a containment of the device counts in; one that waits stays where it began to wait.

        New devices have pools of their own, so that somebody who enrols throw-away devices, or makes up ids, uses up
        nothing of the others'. Where no device is older, as in the first days, only enrolment tokens tell them apart.
        """
        pending = device.pending
        if pending is not None and pending.why is HoldReason.BLAST_RADIUS:
            now = pending.since
        if now - device.first_seen >= NEWCOMER_FOR:
            return ESTABLISHED
        if device.enrolled_with:
            return TOKEN_POOL + device.enrolled_with
        return NEW_DEVICES if now - self.began_at >= NEWCOMER_FOR else ESTABLISHED

    def radius_of(self, pool: str) -> BlastRadius:
        """Returns what was contained, and waits, in a pool; each has the same limits."""
        if pool == ESTABLISHED:
            return self.radius
        return self.pools.get(pool) or BlastRadius(self.radius.bounds)


NO_GUARDS: Final = FleetGuards()
