"""Revocation that sticks: the registry says who is out, and the devices' states follow it, also after a crash."""

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

ROUND: Final = 2.0  # seconds between two comparisons of registry and devices


class RevocationService:
    """Withdraws certificates, and lets in again whoever got a new one."""

    def __init__(self, certificates: CertificateService, fleet: FleetState, log: Log) -> None:
        self._certificates = certificates
        self._registry = certificates.registry
        self._fleet = fleet
        self._log = log

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.round()
            except (StoreError, TooManyDevicesError) as e:
                self._log("revocations: this round failed", {"error": str(e)})
            changed = self._certificates.changed
            try:
                async with asyncio.timeout(ROUND):
                    await changed.wait()
            except TimeoutError:
                continue
            changed.clear()

    async def revoke_device(self, device_id: str, by: str, reason: str, why: str) -> Sequence[Certificate]:
        """Withdraw every certificate of a device that holds; those that were withdrawn."""
        now = self._fleet.clock.now()
        held = await self._registry.of(device_id)
        return await self.revoke([one.serial for one in held if one.is_valid(now)], by, reason, why)

    async def revoke(self, serials: Sequence[str], by: str, reason: str, why: str) -> Sequence[Certificate]:
        """Withdraw these certificates: registry first, then the list, then the devices' sessions.

        `reason` is a word of the list's, `why` is for people. A crash in between is made good by the next round.
        """
        now = self._fleet.clock.now()
        done = await self._registry.revoke(serials, now, reason)
        if not done:
            return done
        # Whoever signs with them is not believed from here on, before the broker knows.
        for name in dict.fromkeys(one.name for one in done):
            self._certificates.on_changed(name)
        await self._certificates.publish()
        for name in dict.fromkeys(one.name for one in done if one.kind is CertificateKind.CLIENT):
            mine = tuple(one.serial for one in done if one.name == name)
            await self._throw_out(name, mine, by, why)
        return done

    async def _throw_out(self, name: str, serials: tuple[str, ...], by: str, why: str) -> StepOutcome:
        return await self._fleet.apply_and_commit(name, CertificateRevoked(self._fleet.new_id(), serials, by, why))

    async def round(self) -> None:
        """Bring every device of which a certificate was revoked to where the registry says it is."""
        now = self._fleet.clock.now()
        for standing in await self._registry.standings(now):
            device = self._fleet.get(standing.name)
            is_held = device is not None and revocation.is_held_by_revocation(device)
            if standing.is_revoked and not is_held:
                why = "a certificate of it was revoked"
                await self._throw_out(standing.name, (), "cordon", why)
            elif device is not None and is_held and self._may_return(device, standing, now):
                assert standing.newest is not None
                event = CertificateRenewed(self._fleet.new_id(), standing.newest)
                await self._fleet.apply_and_commit(standing.name, event)

    def _may_return(self, device: Device, standing: RevocationStatus, now: float) -> bool:
        """Only once the old session was seen gone, and the broker has had time to fetch the list."""
        if standing.is_revoked or device.case is None or device.case.proven_level is not ContainmentLevel.ISOLATED:
            return False
        return now >= standing.revoked_at + self._certificates.settings.readmit_after
