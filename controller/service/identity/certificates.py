"""The certificate service: issues certificates, publishes revocation lists, and audits what was issued."""

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
    host_fault,
    name_fault,
    validity,
)
from controller.ports.certificates import (
    AuthorityError,
    CertificateAuthority,
    CertificateRegistry,
    CertificateRequest,
    CertificateRequestRefusedError,
    PublishedCrl,
)
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.service.fleet_state import FleetState
from controller.service.identity.crl_publisher import CrlPublisher
from controller.service.settings.settings import AuthoritySettings
from controller.service.unit_of_work import UnitOfWork

EVERY: Final = 5.0  # seconds
_RECORD_AT_ONCE: Final = 500  # certificates audited at once
_PRUNE_AFTER: Final = 400 * 86_400.0  # seconds after expiry that a certificate stays in the registry
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
    """Signs an operator's request and registers the certificate, with or without a running controller.

    Raises:
        AuthorityError: the request or the authority cannot be used.
    """
    try:
        when = validity(now, lifetime, authority.info.issuing_end)
    except CertificateTimeError as e:
        raise AuthorityError(str(e)) from e
    request = authority.read(pem)
    fault = next((fault for fault in map(host_fault, hosts) if fault), name_fault(request.name))
    if fault:
        raise CertificateRequestRefusedError("name_malformed", fault)
    made = authority.issue(request, kind, when, now, "operator", hosts)
    await registry.add(made)
    return made


class CertificateService:
    """The authority with its registry; `changed` is set when certificates of a device changed.

    `on_changed` is called with the name whose certificates changed.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        registry: CertificateRegistry,
        crls: CrlPublisher,
        fleet: FleetState,
        settings: AuthoritySettings,
        log: Log,
        on_changed: Callable[[str], None],
    ) -> None:
        self.authority = authority
        self.registry = registry
        self.crls = crls
        self.settings = settings
        self.changed = asyncio.Event()
        self.on_changed = on_changed
        self._fleet = fleet
        self._clock = fleet.clock
        self._log = log
        self._pruned_at = fleet.clock.monotonic()
        self._warned_at: float | None = None

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(EVERY)

    def sign_client(self, request: CertificateRequest, held: Sequence[Certificate], origin: str) -> Certificate:
        """A certificate for a device that had `held` before; not in the registry yet.

        Raises:
            AuthorityError: the authority has expired.
        """
        now = self._clock.now()
        try:
            when = validity(now, self.settings.device_lifetime, self.authority.info.issuing_end)
        except CertificateTimeError as e:
            raise AuthorityError(str(e)) from e
        # Later than a revocation, even if the clock was set back: a newer certificate readmits the device.
        after = max((one.revoked_at for one in held if one.revoked_at is not None), default=now - 1.0)
        issued_at = now if now > after else after + 0.001
        return self.authority.issue(request, CertificateKind.CLIENT, when, issued_at, origin)

    async def run_once(self) -> None:
        """Publishes the lists that are due, and audits new and expired certificates."""
        try:
            await self.restore_revocations()
            await self.publish()
            await self.record()
            await self.record_expiries()
            await self._warn()
            if self._clock.monotonic() - self._pruned_at > _PRUNE_EVERY:
                self._pruned_at = self._clock.monotonic()
                await self.registry.prune(self._clock.now() - _PRUNE_AFTER)
        except (StoreError, AuthorityError) as e:
            self._log("certificates: this pass failed", {"error": str(e)})

    async def _warn(self) -> None:
        """Alerts once a day about what only people can renew before it expires."""
        moment = self._clock.monotonic()
        if self._warned_at is not None and moment - self._warned_at < WARN_EVERY:
            return
        info, root = self.authority.info, self.authority.root_revocations()
        ends = (
            ("the root certificate", info.root_end),
            ("the issuing certificate (cordon ca rotate-issuing --root-key)", info.issuing_end),
            ("the root's revocation list (cordon ca crl --root-key)", None if root is None else root.next_update),
        )
        now = self._clock.now()
        self._warned_at = moment
        for why in expiry_warnings(ends, now):
            entry = AuditEntry(AuditKind.AUTHORITY_EXPIRING, "", "cordon", "", {"why": why}, alert=True)
            await self._fleet.record(entry)

    def published_crl(self, name: str) -> PublishedCrl | None:
        """The published list of this issuer."""
        return self.crls.published(name)

    @property
    def lists(self) -> Sequence[PublishedCrl]:
        """All published lists."""
        return self.crls.lists

    async def publish(self) -> PublishedCrl:
        """The present list; a new one if a certificate was revoked, or half of its lifetime is over."""
        return await self.crls.publish()

    async def restore_revocations(self) -> None:
        """Revokes again what was revoked since a backup that was restored, and records it."""
        lost = await self.crls.mark_revoked()
        if not lost:
            return
        self._log("revocations that the store had lost are in force again", {"certificates": len(lost)})
        await self._fleet.record(*map(_restored, lost))
        for name in dict.fromkeys(one.name for one in lost):
            self.on_changed(name)
        self.changed.set()

    async def record(self) -> None:
        """Audits each certificate at least once, also those issued on the command line."""
        while found := await self.registry.unrecorded(_RECORD_AT_ONCE):
            entries = [(one.issued_at, _issued(one)) for one in found]
            await self._fleet.commit(UnitOfWork(audit=entries))
            await self.registry.mark_recorded([one.serial for one in found])

    async def record_expiries(self) -> None:
        """One alert per device whose certificate expired without a newer one: it cannot renew any more."""
        now = self._clock.now()
        while found := await self.registry.expired(now, _RECORD_AT_ONCE):
            lost = tuple(
                one
                for one, is_followed in found
                if _is_lost(one, is_followed=is_followed) and one.name not in self._fleet.own.ids
            )
            if lost:
                await self._fleet.record(*map(_expired, lost))
            await self.registry.mark_expiry_recorded([one.serial for one, _ in found])


def _is_lost(one: Certificate, *, is_followed: bool) -> bool:
    """Revocations have their own entry; authorities are warned of before they expire."""
    return one.kind is CertificateKind.CLIENT and one.revoked_at is None and not is_followed


def _expired(one: Certificate) -> AuditEntry:
    why = f"it was not renewed in time: cordon enrol token --device {one.name} --replace, and enrol it again"
    detail: dict[str, object] = {"serial": one.serial, "until": one.end, "why": why}
    return AuditEntry(AuditKind.CERTIFICATE_EXPIRED, one.name, "cordon", "", detail, alert=True)


def _restored(one: Certificate) -> AuditEntry:
    why = "an older store was restored, which had it as valid"
    detail: dict[str, object] = {"serial": one.serial, "name": one.name, "revoked_at": one.revoked_at, "why": why}
    device_id = one.name if one.kind is CertificateKind.CLIENT else ""
    return AuditEntry(AuditKind.CERTIFICATE_REVOCATION_RESTORED, device_id, "cordon", "", detail, alert=True)


def _issued(one: Certificate) -> AuditEntry:
    detail: dict[str, object] = {
        "serial": one.serial, "kind": one.kind.value, "name": one.name, "origin": one.origin, "until": one.end,
    }  # fmt: skip
    device_id = one.name if one.kind is CertificateKind.CLIENT else ""
    kind = AuditKind.CERTIFICATE_IMPORTED if one.origin == "import" else AuditKind.CERTIFICATE_ISSUED
    return AuditEntry(kind, device_id, "cordon", "", detail)
