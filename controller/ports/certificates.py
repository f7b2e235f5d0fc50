"""The certificate authority, and the registry of the certificates that it issued."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from controller.domain.identity.certificates import (
    Certificate,
    CertificateKind,
    OwnCertificate,
    RevocationStatus,
    ValidityPeriod,
)
from controller.domain.identity.enrolment import EnrolmentToken
from controller.ports.errors import ControllerError


class AuthorityError(ControllerError):
    """The certificate authority failed; the text says what to do."""


class CertificateConflictError(AuthorityError):
    """A certificate cannot be told from another one that is registered: by its key, or by its serial number."""


class CertificateRequestRefusedError(AuthorityError):
    """The certificate request is refused; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A certificate request with a valid signature; `name` is its common name, `key` as in `Certificate.key`."""

    name: str
    key: str
    pem: str


@dataclass(frozen=True, slots=True)
class PublishedCrl:
    """A revocation list; `name` is its issuer's key identifier."""

    name: str
    der: bytes
    pem: bytes
    next_update: float


class SharedRevocations(Protocol):
    """What controllers on one store know of each other's revocations."""

    async def put_list(self, number: int, published: PublishedCrl) -> None:
        """Stores a list, unless one of the same issuer with a higher number is there."""
        ...

    async def lists(self, known: Mapping[str, int]) -> Sequence[tuple[int, PublishedCrl]]:
        """The stored lists, with their numbers, that are newer than the `known` numbers by issuer."""
        ...

    async def revoked_since(self, at: float) -> Sequence[tuple[str, str]]:
        """Serial number and name of what was revoked after `at` (Unix seconds)."""
        ...


@dataclass(frozen=True, slots=True)
class AuthorityInfo:
    """The authority for operators; `fingerprint` is what a device pins (SHA-256 of the root, in hex)."""

    fingerprint: str
    subject: str
    issuing_subject: str
    issuing_end: float
    root_end: float
    crl_url: str
    is_imported: bool


class CertificateAuthority(Protocol):
    """Signs with the issuing key; a method takes at most a few milliseconds."""

    @property
    def issuer(self) -> str:
        """Key identifier of the issuing certificate, in hex."""
        ...

    @property
    def former_issuers(self) -> tuple[str, ...]:
        """Key identifiers of replaced issuing certificates whose keys still sign their lists."""
        ...

    @property
    def info(self) -> AuthorityInfo: ...

    @property
    def chain(self) -> str:
        """The issuing certificate, which follows a leaf in a chain, PEM."""
        ...

    @property
    def trust(self) -> str:
        """The root, which peers trust, PEM."""
        ...

    def read(self, pem: str) -> CertificateRequest:
        """Parses a certificate request.

        Raises:
            CertificateRequestRefusedError: malformed, not signed by its own key, a weak key, no name or several.
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
        """Issues a certificate for the request; `hosts` are the names of a server.

        Raises:
            AuthorityError: it cannot be signed.
        """
        ...

    def revocations(
        self, issuer: str, revoked: Sequence[Certificate], number: int, start: float, next_update: float
    ) -> PublishedCrl:
        """Signs the list of one issuing certificate, the present one or a former; it is valid from `start`."""
        ...

    def root_revocations(self) -> PublishedCrl | None:
        """The root's own list, signed offline; `None` if the authority was imported without one."""
        ...

    def verify(self, certificate: Certificate, message: bytes, signature: bytes) -> bool:
        """Whether the key of this certificate signed the message."""
        ...


class OwnCertificateFile(Protocol):
    """The file of a certificate of the controller itself. Each method blocks for the time of reading files."""

    @property
    def use(self) -> str:
        """What it is for, a key of `controller.domain.identity.certificates.OWN_USES`."""
        ...

    def read(self) -> OwnCertificate:
        """The certificate in use.

        Raises:
            AuthorityError: it cannot be read.
        """
        ...

    def request(self) -> str:
        """A certificate request for the same name, signed by the configured key, in PEM.

        Raises:
            AuthorityError: the key cannot be used.
        """
        ...

    def replace(self, chain: str) -> None:
        """Puts a renewed certificate with its chain (PEM) into use, for the next connection.

        Raises:
            AuthorityError: it cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class ExternalCrl:
    """A valid revocation list of another authority; serials and issuer in hex."""

    place: str
    issuer: str
    number: int
    next_update: float
    serials: frozenset[str]


class ExternalCrls(Protocol):
    """Reads revocation lists of other authorities."""

    async def read(self, place: str, now: float) -> ExternalCrl:
        """Reads the list at a path or URL.

        Raises:
            AuthorityError: missing, malformed, not signed by a trusted issuer, or expired at `now`.
        """
        ...


@dataclass(frozen=True, slots=True)
class EnrolmentResult:
    """The outcome of an enrolment: the certificate, or code and text of a refusal."""

    certificate: Certificate | None
    code: str = ""
    message: str = ""
    token: EnrolmentToken | None = None


class RevocationMarks(Protocol):
    """Revoked certificates and the highest numbers of lists, outside the store: a restored store has older ones."""

    @property
    def numbers(self) -> Mapping[str, int]:
        """The highest number of each list, by its name."""
        ...

    @property
    def revoked(self) -> Mapping[str, Certificate]:
        """Every revoked certificate, by its serial number."""
        ...

    def add(self, revoked: Sequence[Certificate], numbers: Mapping[str, int]) -> None:
        """Marks durably what is new or higher; blocks for a write to disk.

        Raises:
            StoreError: it cannot be written.
        """
        ...


class RenewalRefusal(Enum):
    """Why a registry enters no renewal."""

    OVER = "over"  # the renewed certificate is revoked or has ended by now
    KEY_USED = "key used"  # the key is in a certificate of another name


class CertificateRegistry(Protocol):
    """Every certificate and enrolment token. A change that returned survives power loss."""

    async def add(self, *certificates: Certificate) -> None:
        """Adds certificates, all or none; one that is there already stays as it is.

        Raises:
            CertificateConflictError: its key is in a certificate of another name, or its serial number in another one.
        """
        ...

    async def find(self, serial: str) -> Certificate | None:
        """Finds a certificate by its serial number, in hex."""
        ...

    async def of(self, name: str) -> tuple[Certificate, ...]:
        """All certificates of one name, oldest first."""
        ...

    async def by_key(self, key: str) -> Certificate | None:
        """The newest certificate with this key, as in `Certificate.key`."""
        ...

    async def certificates(
        self,
        *,
        name: str | None = None,
        good_at: float | None = None,
        limit: int = 200,
        offset: int = 0,
        after: str | None = None,
    ) -> tuple[Sequence[Certificate], int]:
        """A page, newest first, and the count of all; `good_at` leaves out certificates expired or revoked then.

        `after`: serial of the certificate before the page.

        Raises:
            UnknownRowError: there is no certificate `after`.
        """
        ...

    async def revoke(self, serials: Sequence[str], at: float, reason: str) -> Sequence[Certificate]:
        """Revokes certificates; returns those that were not revoked before."""
        ...

    async def revoke_of(self, name: str, at: float, reason: str) -> Sequence[Certificate]:
        """Revokes every certificate of a name that is valid at `at`, found and changed in one transaction."""
        ...

    async def revoked(self, issuer: str, after: float) -> Sequence[Certificate]:
        """Revoked certificates of one issuer that end after `after`."""
        ...

    async def all_revoked(self) -> Sequence[Certificate]:
        """Revoked certificates of all issuers."""
        ...

    async def restore_revoked(self, certificates: Sequence[Certificate]) -> Sequence[Certificate]:
        """Enters these as revoked; returns those that were absent or not revoked."""
        ...

    async def last_end(self, issuer: str) -> float | None:
        """When the last certificate of this issuer ends; `None` without one."""
        ...

    async def standings(self, now: float) -> Sequence[RevocationStatus]:
        """Every client with a revoked certificate, and its valid certificates at `now`."""
        ...

    async def good_among(self, issuer: str, serials: frozenset[str]) -> Sequence[str]:
        """The serials among these of this issuer's certificates that are in the registry and not revoked."""
        ...

    async def note_list_number(self, name: str, number: int) -> int:
        """Stores the number of a list that was read; returns the highest number so far."""
        ...

    async def next_crl_number(self, issuer: str, at_least: int) -> int:
        """The number of the next list: above every earlier one, and `at_least`."""
        ...

    async def add_token(self, token: EnrolmentToken, most: int) -> bool:
        """Adds an enrolment token beside at most `most` - 1 others; counted and added in one transaction."""
        ...

    async def tokens(self) -> Sequence[EnrolmentToken]:
        """All enrolment tokens, newest first."""
        ...

    async def drop_token(self, token_id: str) -> bool:
        """Deletes a token; returns whether it existed."""
        ...

    async def token(self, digest: str) -> EnrolmentToken | None:
        """Finds an enrolment token by its SHA-256."""
        ...

    async def admit(self, digest: str, certificate: Certificate, now: float, *, is_known: bool) -> EnrolmentResult:
        """Uses the token and adds the certificate, both or neither; of two concurrent calls one succeeds.

        `is_known`: the controller knows a device of this name.
        """
        ...

    async def renew(self, certificate: Certificate, of: str) -> Certificate | RenewalRefusal:
        """Adds a renewal of the certificate with the serial `of`; returns an earlier certificate of the same key."""
        ...

    async def unrecorded(self, limit: int) -> Sequence[Certificate]:
        """Certificates whose issue is not in the audit log yet."""
        ...

    async def mark_recorded(self, serials: Sequence[str]) -> None:
        """Marks the issue of these as audited."""
        ...

    async def expired(self, now: float, limit: int) -> Sequence[tuple[Certificate, bool]]:
        """Devices' certificates that expired by `now` and whose end is not audited, each with whether one of the same
        name follows it.
        """
        ...

    async def mark_expiry_recorded(self, serials: Sequence[str]) -> None:
        """Marks the end of these as audited."""
        ...

    async def prune(self, before: float) -> int:
        """Deletes certificates and tokens that expired before this time; returns how many."""
        ...
