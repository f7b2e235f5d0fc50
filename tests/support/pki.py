"""Keys, certificates, revocation lists and OCSP responses."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import AuthorityInformationAccessOID

PEM = serialization.Encoding.PEM
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
DAY = timedelta(days=1)


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


@cache
def _key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


_numbers = iter(range(1, 1_000_000))


@dataclass
class IssuedCertificate:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)


@dataclass
class Authority:
    """Signs certificates and lists."""

    name: str
    above: "Authority | None" = None
    is_ca: bool = True
    key: Any = None
    own: IssuedCertificate = field(init=False)

    def __post_init__(self) -> None:
        key = self.key or _key(next(_numbers))
        self.own = IssuedCertificate(self._certificate(self.name, key, self.above or self, key, is_ca=self.is_ca), key)

    @property
    def pem(self) -> bytes:
        return self.own.pem

    def _certificate(
        self, name: str, key: Any, issuer: "Authority", own_key: Any, *, is_ca: bool, **options: Any
    ) -> x509.Certificate:
        signing = own_key if issuer is self and not hasattr(self, "own") else issuer.own.key
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(issuer.name))
            .public_key(key.public_key())
            .serial_number(options.get("serial") or x509.random_serial_number())
            .not_valid_before(options.get("start", NOW - 100 * DAY))
            .not_valid_after(options.get("end", NOW + 300 * DAY))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if "names" in options:
            names = [x509.DNSName(one) for one in options["names"]]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if "responder" in options:
            access = x509.AccessDescription(
                AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(options["responder"])
            )
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        if "usage" in options:
            builder = builder.add_extension(x509.ExtendedKeyUsage([options["usage"]]), critical=False)
        is_edwards = isinstance(signing, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
        return builder.sign(signing, None if is_edwards else hashes.SHA256())

    def issue(self, name: str, key: Any = None, **options: Any) -> IssuedCertificate:
        key = key or _key(next(_numbers))
        return IssuedCertificate(self._certificate(name, key, self, key, is_ca=False, **options), key)

    def crl(
        self, *revoked: IssuedCertificate, start: datetime = NOW - DAY, end: datetime = NOW + DAY, key: Any = None
    ) -> bytes:
        builder = x509.CertificateRevocationListBuilder().issuer_name(named(self.name))
        builder = builder.last_update(start).next_update(end)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(start).build())
        return builder.sign(key or self.own.key, hashes.SHA256()).public_bytes(PEM)


def key_pem(key: Any, passphrase: str = "", form: str = "PKCS8") -> bytes:
    """A private key in one of cryptography's formats."""
    protection = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    return bytes(key.private_bytes(PEM, getattr(serialization.PrivateFormat, form), protection))
