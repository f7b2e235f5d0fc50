"""Follows revocation lists of other authorities: a certificate in one is revoked here too."""

import asyncio
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.certificates import AuthorityError, CertificateRegistry, ExternalCrl, ExternalCrls
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState
from controller.service.identity.crl_publisher import CrlPublisher
from controller.service.identity.revocation import RevocationService

_COMPARABLE: Final = 2**63  # larger numbers are stored cut, and cannot be compared
_MAX_WHY: Final = 300  # characters of a failure in the audit log


class ExternalCrlRefresher:
    """Reads each list every `every` seconds. `troubles`: by location, why a list is not usable now."""

    def __init__(
        self,
        lists: ExternalCrls,
        places: tuple[str, ...],
        every: float,
        registry: CertificateRegistry,
        crls: CrlPublisher,
        revocation: RevocationService,
        fleet: FleetState,
        log: Log,
    ) -> None:
        self._lists = lists
        self._places = places
        self._every = every
        self._registry = registry
        self._crls = crls
        self._revocation = revocation
        self._fleet = fleet
        self._log = log
        self.troubles: dict[str, str] = {}

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(self._every)

    async def run_once(self) -> None:
        """Reads every list once; one that is not usable revokes nothing and is an alert."""
        for place in self._places:
            try:
                await self._apply(await self._lists.read(place, self._fleet.clock.now()))
                await self._record_recovery(place)
            except AuthorityError as e:
                await self._record_failure(place, str(e)[:_MAX_WHY])
            except StoreError as e:
                self._log("revocation list not followed", {"place": place, "error": str(e)})

    async def _apply(self, found: ExternalCrl) -> None:
        highest = await self._crls.highest_seen(f"{found.place} {found.issuer}", found.number)
        if found.number < highest and found.number < _COMPARABLE:
            # Whoever controls that address could undo a revocation with an older list that is still valid.
            raise AuthorityError(f"{found.place}: number {found.number} after {highest}: an older list came back")
        known = await self._registry.good_among(found.issuer, found.serials)
        if known:
            why = f"its serial number is in the revocation list {found.place}"
            await self._revocation.revoke_listed(known, why)

    async def _record_failure(self, place: str, why: str) -> None:
        if self.troubles.get(place) == why:
            return
        is_new = place not in self.troubles
        self.troubles[place] = why
        if is_new:
            await self._tell(AuditKind.CRL_FAILED, place, why, alert=True)

    async def _record_recovery(self, place: str) -> None:
        if self.troubles.pop(place, None) is not None:
            await self._tell(AuditKind.CRL_RECOVERED, place, "", alert=False)

    async def _tell(self, kind: AuditKind, place: str, why: str, *, alert: bool) -> None:
        entry = AuditEntry(kind, "", "cordon", "", {"place": place, "why": why}, alert)
        try:
            await self._fleet.record(entry)
        except StoreError as e:
            self._log("not recorded", {"kind": kind.value, "place": place, "why": why, "error": str(e)})
