"""Certificates as a service: issues them, keeps the revocation lists fresh, and tells the record what was issued."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.identity.certificates import (
    WARN_EVERY,
    Certificate,
    CertificateKind,
    CertificateTimeError,
    expiry_warnings,
    validity,
)
from controller.ports.certificates import (
    AuthorityError,
    CertificateAuthority,
    CertificateRegistry,
    CertificateRequest,
    PublishedCrl,
)
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState
from controller.service.settings.settings import AuthoritySettings
from controller.service.unit_of_work import UnitOfWork

ROUND: Final = 5.0  # seconds between two looks at what is due
_RECORD_AT_ONCE: Final = 500  # certificates told to the record in one go
_PRUNE_AFTER: Final = 400 * 86_400.0  # seconds after its end that a certificate is kept in the registry
_PRUNE_EVERY: Final = 86_400.0


async def issue(
    authority: CertificateAuthority,
    registry: CertificateRegistry,
    now: float,
    lifetime: float,
    pem: str,
    kind: CertificateKind,
    hosts: Sequence[str],
) -> Certificate:
    """Sign an operator's request and enter it in the registry, with a controller running or not.

    Raises:
        AuthorityError: the request or the authority will not do.
    """
    try:
        when = validity(now, lifetime, authority.info.issuing_end)
    except CertificateTimeError as e:
        raise AuthorityError(str(e)) from e
    made = authority.issue(authority.read(pem), kind, when, now, "operator", hosts)
    await registry.add(made)
    return made


class CertificateService:
    """What the API and the loops need of the authority; `changed` is set when somebody's certificates changed.

    `on_changed` is called with the name whose certificates changed.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        registry: CertificateRegistry,
        fleet: FleetState,
        settings: AuthoritySettings,
        log: Log,
        on_changed: Callable[[str], None],
    ) -> None:
        self.authority = authority
        self.registry = registry
        self.settings = settings
        self.changed = asyncio.Event()
        self.on_changed = on_changed
        self._fleet = fleet
        self._clock = fleet.clock
        self._log = log
        self._lists: dict[str, PublishedCrl] = {}
        self._listed: tuple[str, ...] = ()
        self._publishing = asyncio.Lock()
        self._pruned_at = fleet.clock.monotonic()
        self._warned_at: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND)

    def sign_client(self, request: CertificateRequest, held: Sequence[Certificate], origin: str) -> Certificate:
        """A certificate for a device that had `held` before; not in the registry yet.

        Raises:
            AuthorityError: the authority cannot sign any more.
        """
        now = self._clock.now()
        try:
            when = validity(now, self.settings.device_lifetime, self.authority.info.issuing_end)
        except CertificateTimeError as e:
            raise AuthorityError(str(e)) from e
        # After a revocation, whatever the clock was set to meanwhile: that is what lets the device in again.
        after = max((one.revoked_at for one in held if one.revoked_at is not None), default=now - 1.0)
        issued_at = now if now > after else after + 0.001
        return self.authority.issue(request, CertificateKind.CLIENT, when, issued_at, origin)

    async def round(self) -> None:
        """Publish what is due, tell the record what is new."""
        try:
            await self.publish()
            await self.record()
            await self.tell_of_ends()
            await self._warn()
            if self._clock.monotonic() - self._pruned_at > _PRUNE_EVERY:
                self._pruned_at = self._clock.monotonic()
                await self.registry.prune(self._clock.now() - _PRUNE_AFTER)
        except (StoreError, AuthorityError) as e:
            self._log("certificates: this round failed", {"error": str(e)})

    async def _warn(self) -> None:
        """An alert a day about what only people can renew: forgotten, it locks out everybody."""
        moment = self._clock.monotonic()
        if self._warned_at is not None and moment - self._warned_at < WARN_EVERY:
            return
        info, root = self.authority.info, self.authority.root_revocations()
        ends = (
            ("the root certificate", info.root_end),
            ("the issuing certificate", info.issuing_end),
            ("the root's revocation list (cordon ca crl --root-key)", None if root is None else root.next_update),
        )
        now = self._clock.now()
        self._warned_at = moment
        for why in expiry_warnings(ends, now):
            entry = AuditEntry(AuditKind.AUTHORITY_EXPIRING, "", "cordon", "", {"why": why}, alert=True)
            await self._fleet.record(entry)

    def served(self, name: str) -> PublishedCrl | None:
        """The list of this issuer, if it is one of ours."""
        return self._lists.get(name)

    @property
    def lists(self) -> Sequence[PublishedCrl]:
        """All lists that are handed out."""
        return tuple(self._lists.values())

    async def publish(self) -> PublishedCrl:
        """The list of what was revoked, made anew where something was, or where it is half through its life."""
        async with self._publishing:
            return await self._publish()

    async def _publish(self) -> PublishedCrl:
        authority, now, lifetime = self.authority, self._clock.now(), self.settings.crl_lifetime
        root = authority.root_revocations()
        if root is not None:
            self._lists[root.name] = root
        revoked = await self.registry.revoked(authority.issuer, now)
        listed = tuple(sorted(one.serial for one in revoked))
        current = self._lists.get(authority.issuer)
        if current is not None and listed == self._listed and current.next_update - now > lifetime / 2:
            return current
        number = await self.registry.next_crl_number(authority.issuer)
        fresh = authority.revocations(revoked, number, now, now + lifetime)
        self._lists[authority.issuer] = fresh
        self._listed = listed
        self._log("revocation list published", {"number": number, "revoked": len(listed)})
        return fresh

    async def record(self) -> None:
        """Tell the audit of certificates it does not know: at least once each, also those made by hand."""
        while found := await self.registry.unrecorded(_RECORD_AT_ONCE):
            entries = [(one.issued_at, _told(one)) for one in found]
            await self._fleet.commit(UnitOfWork(audit=entries))
            await self.registry.mark_recorded([one.serial for one in found])

    async def tell_of_ends(self) -> None:
        """One alert for each device whose certificate expired and that has no later one: it cannot renew any more."""
        now = self._clock.now()
        while found := await self.registry.expired(now, _RECORD_AT_ONCE):
            lost = tuple(one for one, is_followed in found if _is_lost(one, is_followed=is_followed))
            if lost:
                await self._fleet.record(*map(_ended, lost))
            await self.registry.mark_expiry_recorded([one.serial for one, _ in found])


def _is_lost(one: Certificate, *, is_followed: bool) -> bool:
    """A revoked one was told of, and what is said of a server's or an authority's end is said before it."""
    return one.kind is CertificateKind.CLIENT and one.revoked_at is None and not is_followed


def _ended(one: Certificate) -> AuditEntry:
    why = f"it was not renewed in time: cordon enrol token --device {one.name} --replace, and enrol it again"
    detail: dict[str, object] = {"serial": one.serial, "until": one.end, "why": why}
    return AuditEntry(AuditKind.CERTIFICATE_EXPIRED, one.name, "cordon", "", detail, alert=True)


def _told(one: Certificate) -> AuditEntry:
    detail: dict[str, object] = {
        "serial": one.serial, "kind": one.kind.value, "name": one.name, "origin": one.origin, "until": one.end,
    }  # fmt: skip
    device_id = one.name if one.kind is CertificateKind.CLIENT else ""
    kind = AuditKind.CERTIFICATE_IMPORTED if one.origin == "import" else AuditKind.CERTIFICATE_ISSUED
    return AuditEntry(kind, device_id, "cordon", "", detail)
