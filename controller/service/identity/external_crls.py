"""Follows revocation lists of other authorities: whose certificate appears in one is out here too."""

import asyncio
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.ports.certificates import AuthorityError, CertificateRegistry, ExternalCrl, ExternalCrls
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState
from controller.service.identity.revocation import RevocationService

_COMPARABLE: Final = 2**63  # numbers from here on are kept cut, and cannot be compared
_MAX_WHY: Final = 300  # characters of a trouble that go into the record


class ExternalCrlRefresher:
    """Reads each list every `every` seconds. `troubles`: places that are not usable now, and why."""

    def __init__(
        self,
        lists: ExternalCrls,
        places: tuple[str, ...],
        every: float,
        registry: CertificateRegistry,
        revocation: RevocationService,
        fleet: FleetState,
        log: Log,
    ) -> None:
        self._lists = lists
        self._places = places
        self._every = every
        self._registry = registry
        self._revocation = revocation
        self._fleet = fleet
        self._log = log
        self.troubles: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(self._every)

    async def round(self) -> None:
        """Read every list once; one that is not usable revokes nobody and is an alert."""
        for place in self._places:
            try:
                await self._follow(await self._lists.read(place, self._fleet.clock.now()))
                await self._well(place)
            except AuthorityError as e:
                await self._trouble(place, str(e)[:_MAX_WHY])
            except StoreError as e:
                self._log("revocation list not followed", {"place": place, "error": str(e)})

    async def _follow(self, found: ExternalCrl) -> None:
        highest = await self._registry.note_list_number(f"{found.place} {found.issuer}", found.number)
        if found.number < highest and found.number < _COMPARABLE:
            # Somebody who can answer for that address could undo a revocation with an old list that is still fresh.
            raise AuthorityError(f"{found.place}: number {found.number} after {highest}: an older list came back")
        known = await self._registry.good_among(found.issuer, found.serials)
        if known:
            why = f"its serial number is in the revocation list {found.place}"
            await self._revocation.revoke(known, "list", "unspecified", why)

    async def _trouble(self, place: str, why: str) -> None:
        if self.troubles.get(place) == why:
            return
        is_new = place not in self.troubles
        self.troubles[place] = why
        if is_new:
            await self._tell(AuditKind.CRL_FAILED, place, why, alert=True)

    async def _well(self, place: str) -> None:
        if self.troubles.pop(place, None) is not None:
            await self._tell(AuditKind.CRL_RECOVERED, place, "", alert=False)

    async def _tell(self, kind: AuditKind, place: str, why: str, *, alert: bool) -> None:
        entry = AuditEntry(kind, "", "cordon", "", {"place": place, "why": why}, alert)
        try:
            await self._fleet.record(entry)
        except StoreError as e:
            self._log("not recorded", {"kind": kind.value, "place": place, "why": why, "error": str(e)})
