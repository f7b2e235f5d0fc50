"""Revocation: the registry decides, and the states of devices follow it, also after a crash."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment import revocation
from controller.domain.device import Device
from controller.domain.effects import AuditEntry
from controller.domain.events import CertificateRenewed, CertificateRevoked, ReleaseOrdered
from controller.domain.identity.certificates import Certificate, CertificateKind, RevocationStatus
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import StepOutcome
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState, TooManyDevicesError
from controller.service.identity.certificates import CertificateService

EVERY: Final = 2.0  # seconds between two comparisons of registry and devices
_MAX_NAMED: Final = 20  # clients named in one audit entry


@dataclass(frozen=True, slots=True)
class _Cause:
    """Who revoked which certificates of a name, and why."""

    serials: tuple[str, ...] = ()
    by: str = "cordon"
    why: str = "a certificate of it was revoked"


class RevocationService:
    """Revokes certificates, and readmits devices with a new one."""

    def __init__(self, certificates: CertificateService, fleet: FleetState, log: Log) -> None:
        self._certificates = certificates
        self._registry = certificates.registry
        self._fleet = fleet
        self._log = log
        # Between an order and the isolation that follows it, no pass takes the revocation for one without an order.
        self._lock = asyncio.Lock()
        self._told_own: set[str] = set()
        self.waiting: Mapping[str, str] = {}  # clients with a revoked certificate that are not isolated, and why

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self.run_once()
            except (StoreError, TooManyDevicesError) as e:
                self._log("revocations: this pass failed", {"error": str(e)})
            changed = self._certificates.changed
            try:
                async with asyncio.timeout(EVERY):
                    await changed.wait()
            except TimeoutError:
                continue
            changed.clear()

    async def revoke_device(self, device_id: str, by: str, reason: str, why: str) -> Sequence[Certificate]:
        """Revokes every valid certificate of a device; returns those that were revoked."""
        now = self._fleet.clock.now()
        return await self._revoke_and_isolate(self._registry.revoke_of(device_id, now, reason), by, why)

    async def revoke(self, serials: Sequence[str], by: str, reason: str, why: str) -> Sequence[Certificate]:
        """Revokes certificates as a person ordered: in the registry, in the list, then the devices are isolated.

        `reason` is the reason in the list, `why` is for people. After a crash the next pass completes it. The caller
        has checked how many devices this person may contain.
        """
        now = self._fleet.clock.now()
        return await self._revoke_and_isolate(self._registry.revoke(serials, now, reason), by, why)

    async def _revoke_and_isolate(
        self, revoking: Awaitable[Sequence[Certificate]], by: str, why: str
    ) -> Sequence[Certificate]:
        async with self._lock:
            done = await self._publish(await revoking)
            for name, cause in _causes(done, by, why).items():
                if name not in self._fleet.own.ids:
                    await self._isolate(name, cause, counts=False)
        return done

    async def revoke_listed(self, serials: Sequence[str], why: str) -> Sequence[Certificate]:
        """Revokes what a list of another authority names; the devices are isolated within the guards' limits."""
        async with self._lock:
            now = self._fleet.clock.now()
            done = await self._publish(await self._registry.revoke(serials, now, "unspecified"))
            await self._follow(_causes(done, "list", why))
        return done

    async def _publish(self, done: Sequence[Certificate]) -> Sequence[Certificate]:
        if not done:
            return done
        # Reports signed with them are rejected from now on, before the broker has the list.
        for name in dict.fromkeys(one.name for one in done):
            self._certificates.on_changed(name)
        await self._certificates.crls.mark_revoked()
        await self._certificates.publish()
        return done

    async def _isolate(self, name: str, cause: _Cause, *, counts: bool) -> StepOutcome:
        event = CertificateRevoked(self._fleet.new_id(), cause.serials, cause.by, cause.why, counts)
        return await self._fleet.apply_and_commit(name, event)

    async def run_once(self) -> None:
        """Isolates or readmits every device with a revoked certificate, as the registry says."""
        async with self._lock:
            await self._follow({})

    async def _follow(self, causes: Mapping[str, _Cause]) -> None:
        fleet, revoked = self._fleet, []
        now = fleet.clock.now()
        for standing in await self._registry.standings(now):
            device = await fleet.find(standing.name)
            is_held = device is not None and revocation.is_held_by_revocation(device)
            if standing.name in fleet.own.ids:
                await self._spare_own(standing.name, device, is_revoked=standing.is_revoked)
            elif standing.is_revoked and not is_held:
                revoked.append(device or Device(standing.name, first_seen=now, last_seen=now))
            elif device is not None and is_held and self._may_be_readmitted(device, standing, now):
                assert standing.newest is not None
                event = CertificateRenewed(fleet.new_id(), standing.newest)
                await fleet.apply_and_commit(standing.name, event)
        waiting = revocation.why_not_isolated(revoked, fleet.guards, self.waiting.keys(), now)
        for name in (device.device_id for device in revoked):
            if name not in waiting:
                await self._isolate(name, causes.get(name, _Cause()), counts=True)
        await self._announce({name: why for name, why in waiting.items() if name not in self.waiting})
        self.waiting = waiting

    async def _spare_own(self, name: str, device: Device | None, *, is_revoked: bool) -> None:
        """Isolating the controller itself would end all containment; one that is isolated is released."""
        if is_revoked and name not in self._told_own:
            self._told_own.add(name)
            await self._announce({name: "the controller itself, which is never isolated"})
        if device is None or device.case is None:
            return
        why = "the controller itself is never isolated"
        if revocation.is_held_by_revocation(device):
            now = self._fleet.clock.now()
            await self._fleet.apply_and_commit(device.device_id, CertificateRenewed(self._fleet.new_id(), now))
        await self._fleet.apply_and_commit(device.device_id, ReleaseOrdered(self._fleet.new_id(), "cordon", why))

    async def _announce(self, held: Mapping[str, str]) -> None:
        if not held:
            return
        detail: dict[str, object] = {
            "clients": len(held),
            "first": {name: held[name] for name in list(held)[:_MAX_NAMED]},
            "what": "isolate them by hand if the revocation is right: cordon quarantine isolate",
        }
        device_id = next(iter(held)) if len(held) == 1 else ""
        await self._fleet.record(
            AuditEntry(AuditKind.CERTIFICATE_REVOKED_ONLY, device_id, "cordon", "", detail, alert=True)
        )

    def _may_be_readmitted(self, device: Device, standing: RevocationStatus, now: float) -> bool:
        """Whether the old session is proven to have ended, and the broker had time to fetch the list."""
        if standing.is_revoked or device.case is None or device.case.proven_level is not ContainmentLevel.ISOLATED:
            return False
        return now >= standing.revoked_at + self._certificates.settings.readmit_after


def _causes(done: Sequence[Certificate], by: str, why: str) -> Mapping[str, _Cause]:
    """By client name: which of its certificates were revoked."""
    serials: dict[str, list[str]] = {}
    for one in done:
        if one.kind is CertificateKind.CLIENT:
            serials.setdefault(one.name, []).append(one.serial)
    return {name: _Cause(tuple(mine), by, why) for name, mine in serials.items()}
