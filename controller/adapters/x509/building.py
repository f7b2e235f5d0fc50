"""Builds certificates and revocation lists; the only module with their profiles."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.domain.identity.certificates import Certificate, CertificateKind, PublicKeyInfo, ValidityPeriod
from controller.ports.certificates import AuthorityError

SERIAL_BITS: Final = 128  # random; RFC 5280 asks for at most 20 bytes, positive
MAX_HOSTS: Final = 32
PEM: Final = serialization.Encoding.PEM
DER: Final = serialization.Encoding.DER
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_USAGES: Final = {
    CertificateKind.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    CertificateKind.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}
_REASONS: Final = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key_compromise": x509.ReasonFlags.key_compromise,
    "affiliation_changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation_of_operation": x509.ReasonFlags.cessation_of_operation,
    "privilege_withdrawn": x509.ReasonFlags.privilege_withdrawn,
}


def named(text: str) -> x509.Name:
    """Returns a distinguished name with only a common name.

    Raises:
        AuthorityError: a common name cannot be this text.
    """
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    except ValueError as e:
        raise AuthorityError(f"{text!r} is no common name: it has 1 to 64 characters") from e


def moment(seconds: float) -> datetime:
    """Returns Unix seconds as a time in whole seconds, as in X.509."""
    return datetime.fromtimestamp(int(seconds), UTC)


def hash_for(key: SigningKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """Returns the hash for a signing key; none for Ed25519."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    is_long = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256
    return hashes.SHA384() if is_long else hashes.SHA256()


def key_identifier(public: Any) -> str:
    """Returns the key identifier in certificates, in hex."""
    return x509.SubjectKeyIdentifier.from_public_key(public).digest.hex()


def key_digest(public: Any) -> str:
    """Returns the SHA-256 of a certificate's public key, in hex."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def describe_key(public: Any) -> PublicKeyInfo:
    """Returns the properties of a key that the domain checks."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        return PublicKeyInfo("ec", public.curve.key_size, public.curve.name)
    if isinstance(public, rsa.RSAPublicKey):
        return PublicKeyInfo("rsa", public.key_size)
    if isinstance(public, ed25519.Ed25519PublicKey):
        return PublicKeyInfo("ed25519", 256)
    return PublicKeyInfo(type(public).__name__, getattr(public, "key_size", 0))


def serial_of(certificate: x509.Certificate) -> str:
    """Returns the serial number in lower-case hex without leading zeros."""
    return f"{certificate.serial_number:x}"


def leaf(
    kind: CertificateKind, name: str, public: Any, when: ValidityPeriod, hosts: Sequence[str], crl_url: str
) -> x509.CertificateBuilder:
    """Returns a builder of a server or client certificate, without issuer.

    Raises:
        AuthorityError: an invalid host, or too many.
    """
    names: list[x509.GeneralName] = [_host(one) for one in hosts]
    if len(names) > MAX_HOSTS:
        raise AuthorityError(f"a certificate has at most {MAX_HOSTS} hosts")
    builder = (
        _builder(named(name), public, when)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGES[kind]]), critical=False)
        .add_extension(_distribution(crl_url), critical=False)
    )
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False) if names else builder


def authority(
    name: str, public: Any, when: ValidityPeriod, *, path_length: int, crl_url: str
) -> x509.CertificateBuilder:
    """Returns a builder of an authority certificate, without issuer; without `crl_url` it is a root."""
    builder = (
        _builder(named(name), public, when)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
    )
    return builder.add_extension(_distribution(crl_url), critical=False) if crl_url else builder


def signed(
    builder: x509.CertificateBuilder, issuer: x509.Name, key: SigningKey, *, is_own: bool = False
) -> x509.Certificate:
    """Returns the signed certificate; `is_own`: a self-signed root."""
    builder = builder.issuer_name(issuer)
    if not is_own:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    return builder.sign(key, hash_for(key))


def revocation_list(
    issuer: x509.Name,
    key: SigningKey,
    revoked: Sequence[Certificate],
    number: int,
    start: float,
    until: float,
    entries: Iterable[x509.RevokedCertificate] = (),
) -> x509.CertificateRevocationList:
    """Returns a list of these certificates and other entries, valid from `start` to `until` (Unix seconds)."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(moment(start))
        .next_update(moment(until))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for one in revoked:
        assert one.revoked_at is not None
        builder = builder.add_revoked_certificate(revoked_entry(int(one.serial, 16), one.revoked_at, one.reason))
    for known in entries:
        builder = builder.add_revoked_certificate(known)
    return builder.sign(key, hash_for(key))


def revoked_entry(serial: int, at: float, reason: str) -> x509.RevokedCertificate:
    """Returns an entry of a revocation list; `at` in Unix seconds."""
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment(at))
    flag = _REASONS.get(reason)
    if flag is not None and flag is not x509.ReasonFlags.unspecified:
        entry = entry.add_extension(x509.CRLReason(flag), critical=False)
    return entry.build()


def _builder(subject: x509.Name, public: Any, when: ValidityPeriod) -> x509.CertificateBuilder:
    serial = x509.random_serial_number() >> (159 - SERIAL_BITS)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public)
        .serial_number(serial or 1)
        .not_valid_before(moment(when.start))
        .not_valid_after(moment(when.end))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=is_authority, crl_sign=is_authority, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _distribution(url: str) -> x509.CRLDistributionPoints:
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
    return x509.CRLDistributionPoints([point])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError as e:
        raise AuthorityError(f"{text!r} is neither a host name nor an address") from e


def new_request(name: str) -> tuple[bytes, str]:
    """Returns a P-256 key (PKCS #8, PEM, no passphrase) and its request for `name` (PEM)."""
    key = generate_private_key(SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(named(name)).sign(key, hashes.SHA256())
    return key.private_bytes(PEM, PrivateFormat.PKCS8, NoEncryption()), request.public_bytes(PEM).decode()
