"""What issues certificates, and the register of all that were issued."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.domain.identity.certificates import Certificate, CertificateKind, RevocationStatus, ValidityPeriod
from controller.domain.identity.enrolment import EnrolmentToken
from controller.ports.errors import ControllerError


class AuthorityError(ControllerError):
    """The authority cannot do what was asked; the text says what to do."""


class CertificateRequestRefusedError(AuthorityError):
    """No certificate for this request; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A certificate request that was read, whose signature is good: `name` is its common name, `key` as in the
    registry.
    """

    name: str
    key: str
    pem: str


@dataclass(frozen=True, slots=True)
class PublishedCrl:
    """A revocation list to hand out: `name` is its issuer's key identifier."""

    name: str
    der: bytes
    pem: bytes
    next_update: float


@dataclass(frozen=True, slots=True)
class AuthorityInfo:
    """The authority in words: `fingerprint` is what a device pins (SHA-256 of the root, in hex)."""

    fingerprint: str
    subject: str
    issuing_subject: str
    issuing_end: float
    root_end: float
    crl_url: str
    is_imported: bool


class CertificateAuthority(Protocol):
    """Signs with the issuing key. Every method is quick: microseconds to a few milliseconds."""

    @property
    def issuer(self) -> str:
        """Key identifier of the issuing certificate, in hex."""
        ...

    @property
    def info(self) -> AuthorityInfo:
        """For operators."""
        ...

    @property
    def chain(self) -> str:
        """What follows a leaf in a chain: the issuing certificate, PEM."""
        ...

    @property
    def trust(self) -> str:
        """What a peer trusts: the root, PEM."""
        ...

    def read(self, pem: str) -> CertificateRequest:
        """Read a request.

        Raises:
            CertificateRequestRefusedError: not a request, not signed by its own key, a weak key, no name or several.
        """
        ...

    def issue(
        self,
        request: CertificateRequest,
        kind: CertificateKind,
        when: ValidityPeriod,
        now: float,
        origin: str,
        hosts: Sequence[str] = (),
    ) -> Certificate:
        """A certificate for the request; `hosts` are the names of a server.

        Raises:
            AuthorityError: it cannot be signed.
        """
        ...

    def revocations(self, revoked: Sequence[Certificate], number: int, now: float, next_update: float) -> PublishedCrl:
        """The list of what this authority revoked."""
        ...

    def root_revocations(self) -> PublishedCrl | None:
        """The root's own list, signed offline; none where the authority was imported without one."""
        ...

    def verify(self, certificate: Certificate, message: bytes, signature: bytes) -> bool:
        """Whether the key of a certificate of the registry signed the message."""
        ...


@dataclass(frozen=True, slots=True)
class ExternalCrl:
    """Another authority's list whose signature is good and whose time is not over; serials and issuer in hex."""

    place: str
    issuer: str
    number: int
    next_update: float
    serials: frozenset[str]


class ExternalCrls(Protocol):
    """Where lists of other authorities come from."""

    async def read(self, place: str, now: float) -> ExternalCrl:
        """The list at a path or an address.

        Raises:
            AuthorityError: not there, no list, signed by nobody who is believed, or out of date at `now`.
        """
        ...


@dataclass(frozen=True, slots=True)
class EnrolmentResult:
    """What became of an enrolment: the certificate, or the code and words of a refusal."""

    certificate: Certificate | None
    code: str = ""
    message: str = ""
    token: EnrolmentToken | None = None


class CertificateRegistry(Protocol):
    """Every certificate and every enrolment token. What returned survives power loss."""

    async def add(self, certificate: Certificate) -> None:
        """One more certificate."""
        ...

    async def find(self, serial: str) -> Certificate | None:
        """By serial number, in hex."""
        ...

    async def of(self, name: str) -> tuple[Certificate, ...]:
        """All of one name, oldest first."""
        ...

    async def by_key(self, key: str) -> Certificate | None:
        """The newest one with this key, as in `Certificate.key`."""
        ...

    async def certificates(
        self, *, name: str | None = None, good_at: float | None = None, limit: int = 200, offset: int = 0
    ) -> tuple[Sequence[Certificate], int]:
        """A page, newest first, and how many there are; `good_at` leaves out what is expired or revoked then."""
        ...

    async def revoke(self, serials: Sequence[str], at: float, reason: str) -> Sequence[Certificate]:
        """Mark them revoked; those that were not yet."""
        ...

    async def revoked(self, issuer: str, now: float) -> Sequence[Certificate]:
        """Revoked and not expired, of one issuer."""
        ...

    async def standings(self, now: float) -> Sequence[RevocationStatus]:
        """Every client of which a certificate was revoked, and what it holds at `now`."""
        ...

    async def good_among(self, issuer: str, serials: frozenset[str]) -> Sequence[str]:
        """Serials of this issuer's certificates that are in the registry, among these, and not revoked."""
        ...

    async def note_list_number(self, name: str, number: int) -> int:
        """Remember the number of a list that was seen; the highest one so far."""
        ...

    async def next_crl_number(self, issuer: str) -> int:
        """Grows by one."""
        ...

    async def put_token(self, token: EnrolmentToken) -> None:
        """Keep an enrolment token."""
        ...

    async def tokens(self) -> Sequence[EnrolmentToken]:
        """All enrolment tokens, newest first."""
        ...

    async def drop_token(self, token_id: str) -> bool:
        """Withdraw a token; whether there was one."""
        ...

    async def token(self, digest: str) -> EnrolmentToken | None:
        """By the SHA-256 of the token."""
        ...

    async def admit(self, digest: str, certificate: Certificate, now: float, *, is_known: bool) -> EnrolmentResult:
        """Use the token and enter the certificate, both or neither; of two at once one wins.

        `is_known`: the controller has heard of a device of this name.
        """
        ...

    async def renew(self, certificate: Certificate, of: str) -> Certificate:
        """Enter a renewal of the certificate with the serial `of`, unless this key was given one already: then that."""
        ...

    async def unrecorded(self, limit: int) -> Sequence[Certificate]:
        """Certificates that the audit does not tell of yet."""
        ...

    async def recorded(self, serials: Sequence[str]) -> None:
        """The audit tells of these."""
        ...

    async def ended(self, now: float, limit: int) -> Sequence[tuple[Certificate, bool]]:
        """Certificates of devices that expired by `now` and of which that was not told; with whether one of the same
        name came after it.
        """
        ...

    async def end_told(self, serials: Sequence[str]) -> None:
        """Nothing is to be told of their end any more."""
        ...

    async def prune(self, before: float) -> int:
        """Forget certificates that expired, and tokens that ended, before that time."""
        ...
