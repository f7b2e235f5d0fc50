"""The controller's own certificates: renewed when its authority issued them, else announced before they end."""

import asyncio
from collections.abc import Sequence
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.identity.certificates import (
    Certificate,
    CertificateKind,
    CertificateTimeError,
    OwnCertificate,
    OwnCertificateStatus,
    own_certificate_status,
    validity,
)
from controller.ports.certificates import AuthorityError, OwnCertificateFile
from controller.ports.errors import ControllerError, StoreError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState
from controller.service.identity.certificates import CertificateService

EVERY: Final = 60.0  # seconds between two looks at the files
IMPORTED: Final = "import"  # origin of a certificate that another authority issued
_NOT_OURS: Final = "Cordon's authority did not issue it: replace it"


class OwnCertificateInUseError(ControllerError):
    """The controller itself uses the certificate."""

    def __init__(self) -> None:
        super().__init__(
            "The controller itself uses this certificate: issue another (cordon ca issue-client, issue-server), "
            "put it in use, wait a minute, and revoke this one by its serial number."
        )


class OwnCertificates:
    """Looks at the files; `statuses` has the result of the last look, by use."""

    def __init__(
        self,
        files: Sequence[OwnCertificateFile],
        certificates: CertificateService | None,
        fleet: FleetState,
        log: Log,
    ) -> None:
        """`certificates`: the authority with its registry; without it nothing is renewed."""
        self._files = files
        self._certificates = certificates
        self._fleet = fleet
        self._log = log
        self._announced: set[tuple[str, str, int]] = set()
        self._troubles: dict[str, str] = {}
        self.statuses: dict[str, OwnCertificateStatus] = {}

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(EVERY)

    async def run_once(self) -> None:
        """Renews what is due, and announces what ends and is not renewed."""
        for file in self._files:
            try:
                await self._check(file)
            except StoreError as e:
                self._note(file.use, str(e))

    async def uses(self, certificates: Sequence[Certificate]) -> bool:
        """Whether a controller itself uses one of these."""
        now = self._fleet.clock.now()
        valid = [one for one in certificates if one.is_valid(now)]
        in_use = {status.serial for status in self.statuses.values()}
        if self._certificates is not None:
            for name in dict.fromkeys(self._fleet.own.among(one.name for one in valid)):
                held = [one for one in await self._certificates.registry.of(name) if one.is_valid(now)]
                in_use.add(max(held, key=lambda one: one.issued_at).serial)
        return any(one.serial in in_use for one in valid)

    async def _check(self, file: OwnCertificateFile) -> None:
        found, why_not = None, ""
        try:
            found = await asyncio.to_thread(file.read)
            registered = await self._registered(found)
            if registered is None:
                why_not = _NOT_OURS
            elif self._fleet.clock.now() >= registered.renew_at:
                found = await self._renew(file, found, registered)
        except AuthorityError as e:
            why_not = str(e)
        self._note(file.use, "" if why_not == _NOT_OURS else why_not)
        status = own_certificate_status(file.use, found, why_not, self._fleet.clock.now())
        self.statuses[file.use] = status
        key = (file.use, "" if found is None else found.serial, status.stage)
        if status.stage and key not in self._announced:
            self._announced.add(key)
            detail: dict[str, object] = {"certificate": file.use, "until": status.end or None, "why": status.warning}
            await self._fleet.record(AuditEntry(AuditKind.CERTIFICATE_EXPIRING, "", "cordon", "", detail, alert=True))

    async def _registered(self, found: OwnCertificate) -> Certificate | None:
        """The certificate in the registry, if this authority issued it and it is not revoked."""
        if self._certificates is None:
            return None
        known = await self._certificates.registry.find(found.serial)
        # Also of a former issuing certificate of this authority.
        return None if known is None or known.origin == IMPORTED or known.revoked_at is not None else known

    async def _renew(self, file: OwnCertificateFile, found: OwnCertificate, registered: Certificate) -> OwnCertificate:
        """Issues a certificate for the same key, and puts it into use.

        Raises:
            AuthorityError: the key or the authority cannot be used, or the file cannot be written.
        """
        assert self._certificates is not None
        authority, settings, now = self._certificates.authority, self._certificates.settings, self._fleet.clock.now()
        is_server = registered.kind is CertificateKind.SERVER
        try:
            lifetime = settings.server_lifetime if is_server else settings.device_lifetime
            when = validity(now, lifetime, authority.info.issuing_end)
        except CertificateTimeError as e:
            raise AuthorityError(str(e)) from e
        if when.end <= found.end:
            raise AuthorityError("the issuing certificate ends at the same time: replace that first")
        request = authority.read(await asyncio.to_thread(file.request))
        if request.key != registered.key:
            raise AuthorityError("its key file holds another key")
        origin = f"renewal:{registered.serial}"
        made = authority.issue(request, registered.kind, when, now, origin, found.hosts)
        await self._certificates.registry.add(made)
        await asyncio.to_thread(file.replace, made.pem + authority.chain)
        self._log("own certificate renewed", {"certificate": file.use, "until": made.end})
        return OwnCertificate(file.use, made.serial, made.start, made.end, found.hosts)

    def _note(self, use: str, trouble: str) -> None:
        """Logs a trouble once."""
        if trouble and self._troubles.get(use) != trouble:
            self._log("own certificate cannot be renewed", {"certificate": use, "error": trouble})
        self._troubles[use] = trouble
