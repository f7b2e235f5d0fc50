"""Lifetimes, renewal and requirements of certificates. Pure: X.509 itself is in an adapter.

Times are Unix seconds, durations seconds.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

SKEW: Final = 300.0  # seconds before the issuance from which a certificate is valid, for clocks that differ
_SKEW_SHARE: Final = 0.05  # of the lifetime at most, so that a short-lived certificate is not due for renewal at once
RENEW_AT: Final = 2 / 3  # of the lifetime
RENEW_EARLIEST: Final = 1 / 3  # of the lifetime: an earlier request comes of a clock that is ahead
MIN_LIFETIME: Final = 5.0  # seconds; a shorter one could not be renewed in time
MIN_RSA_BITS: Final = 2048
MAX_NAME: Final = 64  # characters of a common name (RFC 5280)
MAX_HOST: Final = 253  # characters of a host name
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9_:][A-Za-z0-9._:@+-]*")
_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_DAY: Final = 86_400.0
ROOT_LIFETIME: Final = 3650 * _DAY
ISSUING_LIFETIME: Final = 1095 * _DAY
ROOT_CRL_LIFETIME: Final = 365 * _DAY  # signed by an operator with an offline key


class CertificateKind(StrEnum):
    """The purposes that certificates are issued for."""

    ROOT = "root"
    ISSUING = "issuing"
    SERVER = "server"
    CLIENT = "client"

    @property
    def is_authority(self) -> bool:
        """Whether the certificate may issue others."""
        return self in (CertificateKind.ROOT, CertificateKind.ISSUING)


@dataclass(frozen=True, slots=True)
class ValidityPeriod:
    start: float
    end: float

    @property
    def renew_at(self) -> float:
        """When the holder requests its next certificate."""
        return self.start + (self.end - self.start) * RENEW_AT


def name_fault(name: str) -> str:
    """Returns why a certificate cannot have this common name, empty if it can; the name is also a file's."""
    if not name or len(name) > MAX_NAME:
        return f"a name has 1 to {MAX_NAME} characters, this one has {len(name)}"
    if not _NAME.fullmatch(name):
        return f"{name!r} is no name: it has letters, digits and . _ : @ + - and begins with no dot"
    return ""


def host_fault(host: str) -> str:
    """Returns why a certificate cannot be for this host, empty if it can: a host name or an IP address."""
    try:
        ip_address(host)
    except ValueError:
        pass
    else:
        return ""
    if "://" in host or "/" in host:
        return f"{host!r} is a URL or a path: give the host alone"
    labels = host.removeprefix("*.").split(".")
    if len(host) > MAX_HOST or not all(map(_LABEL.fullmatch, labels)):
        return f"{host!r} is neither a host name nor an address"
    if labels[-1].isdigit():
        return f"{host!r} is not a valid IP address"
    return ""


class CertificateTimeError(ValueError):
    """No certificate can be issued for this time."""


def validity(now: float, lifetime: float, issuer_end: float | None) -> ValidityPeriod:
    """Returns the validity of a certificate that is issued at `now`; it ends with the issuer's at the latest.

    Raises:
        CertificateTimeError: the issuer's certificate has expired, or ends too soon.
    """
    end = now + lifetime
    if issuer_end is not None:
        end = min(end, issuer_end)
    if end - now < MIN_LIFETIME:
        raise CertificateTimeError(
            "the authority's own certificate has expired, or is about to: make a new one with cordon ca rotate-issuing"
        )
    return ValidityPeriod(backdated(now, end - now), end)


def backdated(now: float, lifetime: float) -> float:
    """Returns the time from which something issued at `now` is valid, for clocks that are behind."""
    return now - min(SKEW, lifetime * _SKEW_SHARE)


WARN_BEFORE: Final = 30 * _DAY  # before the end of what only an operator renews
WARN_EVERY: Final = _DAY


def expiry_warnings(ends: tuple[tuple[str, float | None], ...], now: float) -> tuple[str, ...]:
    """Returns warnings about names whose end is near: certificates and lists that only an operator renews."""
    soon = [(name, end) for name, end in ends if end is not None and end - now < WARN_BEFORE]
    return tuple(
        f"{name} ended" if end <= now else f"{name} ends in {(end - now) / _DAY:.0f} days" for name, end in soon
    )


@dataclass(frozen=True, slots=True)
class PublicKeyInfo:
    """The properties of a key that are checked: `kind` is rsa, ec, ed25519 or another; `curve` for ec only."""

    kind: str
    bits: int
    curve: str = ""


def key_weakness(key: PublicKeyInfo) -> str:
    """Returns why no certificate is issued for this key, empty if one is."""
    match key.kind:
        case "ed25519":
            return ""
        case "ec":
            return "" if key.curve in _CURVES else f"curve {key.curve}: use P-256, P-384 or P-521"
        case "rsa":
            return "" if key.bits >= MIN_RSA_BITS else f"RSA with {key.bits} bits: at least {MIN_RSA_BITS}"
        case _:
            return f"a key of the kind {key.kind}: use EC (P-256), Ed25519 or RSA"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A registered certificate, issued or imported.

    `serial` and `issuer` (key identifier) in hex; `key`: SHA-256 of the public key in hex. `origin`: `token:<id>`,
    `renewal:<serial>`, `operator` or `import`. `revoked_at`: `None` if not revoked.
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

    @property
    def renewable_from(self) -> float:
        """The earliest time at which its holder gets the next one."""
        return self.start + (self.end - self.start) * RENEW_EARLIEST

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and now < self.end

    @property
    def renew_at(self) -> float:
        """When the holder requests its next certificate."""
        return ValidityPeriod(self.start, self.end).renew_at


OWN_USES: Final = {"mqtt": "the MQTT connection", "api": "the API", "updates": "the update server"}
ANNOUNCED_DAYS: Final = (30, 7, 1)  # before the end of an own certificate that is not renewed


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A certificate of the controller itself; `use` is a key of `OWN_USES`, `hosts` are the names of a server."""

    use: str
    serial: str
    start: float
    end: float
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnCertificateStatus:
    """What the last look at an own certificate found.

    `stage`: 0 while nothing is to be done, else how many of `ANNOUNCED_DAYS` are reached; `warning` says it in words.
    `end`: 0.0 while the file cannot be read. `serial`: of the certificate in the file, in hex.
    """

    use: str
    end: float
    stage: int = 0
    warning: str = ""
    serial: str = ""


def own_certificate_status(use: str, found: OwnCertificate | None, why_not: str, now: float) -> OwnCertificateStatus:
    """Returns the status of a certificate; `why_not`: why Cordon does not renew it, empty if it does."""
    name = f"the certificate of {OWN_USES[use]} ({use}.certificate)"
    if found is None:
        return OwnCertificateStatus(use, 0.0, 1, f"{name} cannot be read: {why_not}")
    stage = sum(found.end - now < days * _DAY for days in ANNOUNCED_DAYS) if why_not else 0
    if not stage:
        return OwnCertificateStatus(use, found.end, serial=found.serial)
    left = found.end - now
    when = "certificate expired" if left <= 0 else f"ends in {max(1, round(left / _DAY))} days"
    return OwnCertificateStatus(use, found.end, stage, f"{name}: {when}; {why_not}", found.serial)


@dataclass(frozen=True, slots=True)
class RevocationStatus:
    """The registry's view of a device of which a certificate was revoked.

    `revoked_at`: the last revocation; `newest`: when the newest valid certificate was issued, `None` without one.
    """

    name: str
    revoked_at: float
    newest: float | None

    @property
    def is_revoked(self) -> bool:
        """Whether no certificate was issued after the revocation."""
        return self.newest is None or self.newest <= self.revoked_at
