"""What certificates may say, how long they hold, and when they are renewed. Pure: X.509 itself is an adapter's.

Times are Unix seconds, durations seconds.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SKEW: Final = 300.0  # seconds before its making from which a certificate holds: clocks disagree a little
_SKEW_SHARE: Final = 0.05  # of the lifetime, at most: it must not count as used up before it began
RENEW_AT: Final = 2 / 3  # of the lifetime
MIN_LIFETIME: Final = 5.0  # seconds; what is shorter could not be renewed in time
MIN_RSA_BITS: Final = 2048
_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_DAY: Final = 86_400.0
ROOT_LIFETIME: Final = 3650 * _DAY
ISSUING_LIFETIME: Final = 1095 * _DAY
ROOT_CRL_LIFETIME: Final = 365 * _DAY  # signed by hand with a key that is offline
MIN_PASSPHRASE: Final = 20  # characters of a passphrase for the root's key


class CertificateKind(StrEnum):
    """What a certificate is for: nothing else is ever issued."""

    ROOT = "root"
    ISSUING = "issuing"
    SERVER = "server"
    CLIENT = "client"

    @property
    def is_authority(self) -> bool:
        """Whether it may issue others."""
        return self in (CertificateKind.ROOT, CertificateKind.ISSUING)


@dataclass(frozen=True, slots=True)
class ValidityPeriod:
    """From when until when."""

    start: float
    end: float

    @property
    def renew_at(self) -> float:
        """When its holder asks for the next one."""
        return self.start + (self.end - self.start) * RENEW_AT


class CertificateTimeError(ValueError):
    """No certificate can be issued for this time."""


def validity(now: float, lifetime: float, issuer_end: float | None) -> ValidityPeriod:
    """How long a certificate made `now` holds: never longer than its issuer.

    Raises:
        CertificateTimeError: the issuer has expired, or so nearly that nothing useful could be issued.
    """
    end = now + lifetime
    if issuer_end is not None:
        end = min(end, issuer_end)
    if end - now < MIN_LIFETIME:
        raise CertificateTimeError("the authority's own certificate has expired, or is about to: make a new one")
    return ValidityPeriod(now - min(SKEW, (end - now) * _SKEW_SHARE), end)


WARN_BEFORE: Final = 30 * _DAY  # what is renewed by hand is told so long before it ends
WARN_EVERY: Final = _DAY


def expiry_warnings(ends: tuple[tuple[str, float | None], ...], now: float) -> tuple[str, ...]:
    """Which of the things that only people can renew end soon, in words; each is a name and its end, if it has one."""
    soon = [(name, end) for name, end in ends if end is not None and end - now < WARN_BEFORE]
    return tuple(
        f"{name} ended" if end <= now else f"{name} ends in {(end - now) / _DAY:.0f} days" for name, end in soon
    )


@dataclass(frozen=True, slots=True)
class PublicKeyInfo:
    """What decides about a key: `kind` is rsa, ec, ed25519 or another; `curve` for ec only."""

    kind: str
    bits: int
    curve: str = ""


def key_weakness(key: PublicKeyInfo) -> str:
    """Why no certificate is given for this key; empty when one is."""
    match key.kind:
        case "ed25519":
            return ""
        case "ec":
            return "" if key.curve in _CURVES else f"curve {key.curve}: use P-256, P-384 or P-521"
        case "rsa":
            return "" if key.bits >= MIN_RSA_BITS else f"RSA with {key.bits} bits: at least {MIN_RSA_BITS}"
        case _:
            return f"a key of the kind {key.kind}: use EC (P-256), Ed25519 or RSA"


def passphrase_weakness(text: str) -> str:
    """Why a passphrase does not protect the root's key; empty when it does."""
    if len(text) < MIN_PASSPHRASE:
        return f"a passphrase has at least {MIN_PASSPHRASE} characters"
    if len(set(text)) < MIN_PASSPHRASE // 2:
        return "this passphrase repeats itself"
    return ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A line of the registry: a certificate that was issued, or that was made known by import.

    `serial` and `issuer` (the issuer's key identifier) are in hex; `key` is the SHA-256 of the public key in hex.
    `origin` tells what led to it: `token:<id>`, `renewal:<serial>`, `operator`, `import`.
    `revoked_at` is `None` while it is good.
    """

    serial: str
    issuer: str
    kind: CertificateKind
    name: str
    start: float
    end: float
    issued_at: float
    origin: str
    key: str
    pem: str
    revoked_at: float | None = None
    reason: str = ""

    def is_valid(self, now: float) -> bool:
        """Whether it is good at `now`."""
        return self.revoked_at is None and now < self.end


REASONS: Final = (
    "unspecified",
    "key_compromise",
    "affiliation_changed",
    "superseded",
    "cessation_of_operation",
    "privilege_withdrawn",
)


@dataclass(frozen=True, slots=True)
class RevocationStatus:
    """What the registry says of a device that had a certificate revoked.

    `revoked_at`: the last time; `newest`: when the newest certificate that holds was issued, `None` if none does.
    """

    name: str
    revoked_at: float
    newest: float | None

    @property
    def is_revoked(self) -> bool:
        """Whether the revocation is not yet answered by a certificate that was issued after it."""
        return self.newest is None or self.newest <= self.revoked_at
