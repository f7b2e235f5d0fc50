"""Revocation: the registry decides, and the states of devices follow it, also after a crash."""

import asyncio
from collections.abc import Sequence
from typing import Final

from controller.domain.containment import revocation
from controller.domain.device import Device
from controller.domain.events import CertificateRenewed, CertificateRevoked
from controller.domain.identity.certificates import Certificate, CertificateKind, RevocationStatus
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import StepOutcome
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState, TooManyDevicesError
from controller.service.identity.certificates import CertificateService

EVERY: Final = 2.0  # seconds between two comparisons of registry and devices


class RevocationService:
    """Revokes certificates, and readmits devices with a new one."""

    def __init__(self, certificates: CertificateService, fleet: FleetState, log: Log) -> None:
        self._certificates = certificates
        self._registry = certificates.registry
        self._fleet = fleet
        self._log = log

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
        held = await self._registry.of(device_id)
        return await self.revoke([one.serial for one in held if one.is_valid(now)], by, reason, why)

    async def revoke(self, serials: Sequence[str], by: str, reason: str, why: str) -> Sequence[Certificate]:
        """Revokes certificates: first in the registry, then in the list, then the devices are isolated.

        `reason` is the reason in the list, `why` is for people. After a crash the next pass completes it.
        """
        now = self._fleet.clock.now()
        done = await self._registry.revoke(serials, now, reason)
        if not done:
            return done
        # Reports signed with them are rejected from now on, before the broker has the list.
        for name in dict.fromkeys(one.name for one in done):
            self._certificates.on_changed(name)
        await self._certificates.crls.mark_revoked()
        await self._certificates.publish()
        for name in dict.fromkeys(one.name for one in done if one.kind is CertificateKind.CLIENT):
            mine = tuple(one.serial for one in done if one.name == name)
            await self._isolate(name, mine, by, why)
        return done

    async def _isolate(self, name: str, serials: tuple[str, ...], by: str, why: str) -> StepOutcome:
        return await self._fleet.apply_and_commit(name, CertificateRevoked(self._fleet.new_id(), serials, by, why))

    async def run_once(self) -> None:
        """Isolates or readmits every device with a revoked certificate, as the registry says."""
        now = self._fleet.clock.now()
        for standing in await self._registry.standings(now):
            device = self._fleet.get(standing.name)
            is_held = device is not None and revocation.is_held_by_revocation(device)
            if standing.is_revoked and not is_held:
                why = "a certificate of it was revoked"
                await self._isolate(standing.name, (), "cordon", why)
            elif device is not None and is_held and self._may_be_readmitted(device, standing, now):
                assert standing.newest is not None
                event = CertificateRenewed(self._fleet.new_id(), standing.newest)
                await self._fleet.apply_and_commit(standing.name, event)

    def _may_be_readmitted(self, device: Device, standing: RevocationStatus, now: float) -> bool:
        """Whether the old session is proven to have ended, and the broker had time to fetch the list."""
        if standing.is_revoked or device.case is None or device.case.proven_level is not ContainmentLevel.ISOLATED:
            return False
        return now >= standing.revoked_at + self._certificates.settings.readmit_after
