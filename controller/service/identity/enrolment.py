"""Enrolment: a device with a token gets a certificate, and what it needs to connect."""

import contextlib
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.events import DeviceEnrolled
from controller.domain.identity.certificates import Certificate
from controller.domain.identity.enrolment import ANY_LOWER_CASE, TOKEN_REFUSED, EnrolmentToken
from controller.ports.broker import BrokerControl
from controller.ports.broker_tables import BrokerTables
from controller.ports.certificates import AuthorityError, CertificateRequest, CertificateRequestRefusedError
from controller.ports.errors import BrokerUnreachableError
from controller.service.fleet_state import FleetState, TooManyDevicesError
from controller.service.identity.certificates import CertificateService
from controller.service.ingest.rate_limit import TokenBuckets

PREFIX: Final = "cordon-enrol_"
TOKEN_BYTES: Final = 32  # random
MAX_TOKENS: Final = 1000  # enrolment tokens
REFUSALS_PER_SECOND: Final = 1.0  # refused enrolments of one token that are audited
REFUSALS_BURST: Final = 30


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """The answer to an enrolled device."""

    certificate: Certificate
    chain: str
    trust: str
    controller_keys: tuple[str, ...]
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnrolmentTokenRequest:
    """A new token; `lifetime` in seconds."""

    uses: int
    lifetime: float
    by: str
    device_class: str = ""
    device_id: str = ""
    replaces: bool = False
    ids: str = ANY_LOWER_CASE


class BrokerClients:
    """What the broker has under a client id already."""

    def __init__(self, control: BrokerControl, tables: BrokerTables) -> None:
        self._control = control
        self._tables = tables

    async def holding(self, client_id: str) -> str:
        """Returns what it has: a session, a ban or access rules; empty if nothing.

        Raises:
            BrokerError: it cannot be asked.
        """
        if await self._control.has_session(client_id):
            return "a session"
        cluster = await self._tables.cluster()
        if not cluster.answering:
            raise BrokerUnreachableError("no node of the broker answers")
        node = cluster.answering[0]
        if await self._tables.ban_of(node, client_id) is not None:
            return "a ban"
        return "access rules" if await self._tables.rules_of(node, client_id) else ""


class EnrolmentRefusedError(AuthorityError):
    """The enrolment is refused; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def digest_of(token: str) -> str:
    """The stored digest of a token, SHA-256 in hex: a slow hash adds nothing to 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class EnrolmentService:
    """Enrols devices with tokens. `keys` are the public keys that sign commands."""

    def __init__(
        self,
        certificates: CertificateService,
        fleet: FleetState,
        servers: tuple[str, ...],
        keys: Callable[[], tuple[str, ...]],
        clients: BrokerClients,
    ) -> None:
        self._clients = clients
        self._certificates = certificates
        self._registry = certificates.registry
        self._fleet = fleet
        self._servers = servers
        self._keys = keys
        self._audit_limit = TokenBuckets(REFUSALS_PER_SECOND, REFUSALS_BURST)

    async def make_token(self, wanted: EnrolmentTokenRequest) -> tuple[str, EnrolmentToken]:
        """Returns the secret, which is shown once, and the stored token.

        Raises:
            EnrolmentRefusedError: there are `MAX_TOKENS` already.
        """
        secret, now = PREFIX + secrets.token_urlsafe(TOKEN_BYTES), self._fleet.clock.now()
        token = EnrolmentToken(
            token_id=self._fleet.new_id(),
            digest=digest_of(secret),
            uses_left=wanted.uses,
            created_at=now,
            expires_at=now + wanted.lifetime,
            by=wanted.by,
            device_class=wanted.device_class,
            device_id=wanted.device_id,
            replaces=wanted.replaces,
            ids=wanted.ids,
        )
        if not await self._registry.add_token(token, MAX_TOKENS):
            text = f"there are {MAX_TOKENS} enrolment tokens already: revoke some first"
            raise EnrolmentRefusedError("too_many_tokens", text)
        detail: dict[str, object] = {
            "token_id": token.token_id, "uses": token.uses_left, "expires_at": token.expires_at,
            "class": token.device_class, "replaces": token.replaces, "ids": token.ids,
        }  # fmt: skip
        entry = AuditEntry(AuditKind.ENROLMENT_TOKEN_CREATED, token.device_id, wanted.by, "", detail)
        await self._fleet.record(entry)
        return secret, token

    async def withdraw(self, token_id: str, by: str) -> bool:
        """Deletes a token; returns whether it existed."""
        if not await self._registry.drop_token(token_id):
            return False
        entry = AuditEntry(AuditKind.ENROLMENT_TOKEN_WITHDRAWN, "", by, "", {"token_id": token_id})
        await self._fleet.record(entry)
        return True

    async def enrol(self, secret: str, device_id: str, pem: str, peer: str) -> IssuedIdentity:
        """Issues a certificate for a device with a token and a request for its own name.

        Raises:
            EnrolmentRefusedError: the token, the id or the request is refused.
            BrokerError: the token is for no certain device, and the broker cannot say whether the id is free.
        """
        digest, now = digest_of(secret), self._fleet.clock.now()
        # Before the request is parsed: a request without a token costs one read.
        token = await self._registry.token(digest)
        if token is None:
            raise EnrolmentRefusedError(TOKEN_REFUSED.code, TOKEN_REFUSED.message)
        try:
            request = self._read(pem, device_id)
            held = await self._registry.of(device_id)
            if not token.device_id and not held and await self._fleet.find(device_id) is None:
                await self._refuse_foreign(device_id)
            made = self._certificates.sign_client(request, held, f"token:{token.token_id}")
        except CertificateRequestRefusedError as e:
            raise await self._record_refusal(token, device_id, peer, e.code, str(e)) from e
        is_known = await self._fleet.find(device_id) is not None
        admission = await self._registry.admit(digest, made, now, is_known=is_known)
        if admission.certificate is None:
            raise await self._record_refusal(token, device_id, peer, admission.code, admission.message)
        token, given = admission.token or token, admission.certificate
        if given.serial != made.serial and (
            await self._is_enrolled(device_id, token) or any(one.issued_at > given.issued_at for one in held)
        ):
            return self._answer(given)  # the response was lost, and nothing new was decided
        return await self._issue(token, given, peer)

    def _read(self, pem: str, device_id: str) -> CertificateRequest:
        request = self._certificates.authority.read(pem)
        if request.name != device_id:
            raise CertificateRequestRefusedError("wrong_name", f"the request is for another name than {device_id}")
        if device_id in self._fleet.own.ids:
            raise CertificateRequestRefusedError("id_reserved", f"the id {device_id} is the controller's own")
        return request

    async def _refuse_foreign(self, device_id: str) -> None:
        """Refuses an id that some other application uses: whoever has a fleet token would take it over."""
        found = await self._clients.holding(device_id)
        if found:
            text = (
                f"the broker has {found} of a client {device_id} that is no device here; if it is this one, an operator"
                f" approves it with: cordon enrol token --device {device_id}"
            )
            raise CertificateRequestRefusedError("id_in_use", text)

    async def _issue(self, token: EnrolmentToken, certificate: Certificate, peer: str) -> IssuedIdentity:
        name = certificate.name
        detail: dict[str, object] = {"serial": certificate.serial, "token_id": token.token_id, "peer": peer}
        await self._fleet.record(AuditEntry(AuditKind.ENROLMENT_COMPLETED, name, token.by, "", detail))
        enrolled = DeviceEnrolled(self._fleet.new_id(), token.token_id, token.device_class, token.by)
        with contextlib.suppress(TooManyDevicesError):  # its reports are rejected too, until there is room
            await self._fleet.apply_and_commit(name, enrolled)
        self._certificates.changed.set()
        self._certificates.on_changed(name)
        return self._answer(certificate)

    async def _is_enrolled(self, device_id: str, token: EnrolmentToken) -> bool:
        """Whether the enrolment with this token is recorded, or a full fleet has no place for it."""
        device = await self._fleet.find(device_id)
        return self._fleet.is_full if device is None else device.enrolled_with == token.token_id

    def _answer(self, certificate: Certificate) -> IssuedIdentity:
        authority = self._certificates.authority
        return IssuedIdentity(certificate, authority.chain, authority.trust, self._keys(), self._servers)

    async def _record_refusal(
        self, token: EnrolmentToken, device_id: str, peer: str, code: str, message: str
    ) -> EnrolmentRefusedError:
        """Audits a refusal, at a limited rate for each token; returns the error."""
        error = EnrolmentRefusedError(code, message)
        if not self._audit_limit.take(token.token_id, self._fleet.clock.monotonic()):
            return error
        detail: dict[str, object] = {"code": code, "why": message, "peer": peer, "token_id": token.token_id}
        kind = AuditKind.ENROLMENT_TOKEN_REUSED if code == TOKEN_REFUSED.code else AuditKind.ENROLMENT_REFUSED
        entry = AuditEntry(kind, device_id, "unknown", "", detail, alert=True)
        await self._fleet.record(entry)
        return error
