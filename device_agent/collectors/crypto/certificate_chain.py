"""Parses certificates and verifies their chains with `cryptography`; imported only where there are certificates."""

import base64
import binascii
import contextlib
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification

from device_agent.collectors.crypto.key_asn1 import DerReader

# Deprecated encodings in foreign certificates do not belong in the agent's log.
warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning, message="Parsed a ")
# Everything that cryptography may raise for foreign bytes; these classes have no common base.
DAMAGED: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    Warning,
)
MAX_ELEMENTS: Final = 256  # of a file or an answer with DER
_MAX_CHAIN: Final = 8
_MAX_REASON: Final = 200
_SEQUENCE: Final = 0x30
# What cryptography, which implements the profile of the public web, refuses although it may be sound: a part of its
# error, and what is reported.
_UNSUPPORTED: Final = (
    ("orbidden", "its chain has a key or a signature of a kind that cannot be verified"),
    ("X509v3", "its chain has a certificate of version 1, which cannot be verified"),
    ("malformed DNS name constraint", "its chain has name constraints of a form that cannot be verified"),
    ("unsupported name constraint", "its chain has name constraints of a kind that cannot be verified"),
    ("unsupported directoryName", "its chain has name constraints of a kind that cannot be verified"),
    *((f"2.5.29.{arc}:", "its chain has constraints of policies, which cannot be verified") for arc in (33, 36, 54)),
)


def load_der(data: bytes) -> x509.Certificate | None:
    """Parses a DER certificate; returns None when it is malformed."""
    try:
        certificate = x509.load_der_x509_certificate(data)
        # These are parsed lazily: an error has to surface here.
        _ = (certificate.subject, certificate.issuer, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        certificate.public_key()
    except DAMAGED:
        return None
    return certificate if certificate.serial_number >= 0 else None


def load_pem(content: bytes) -> x509.Certificate | None:
    """Parses the base64 content of a PEM block; returns None when it is malformed."""
    der = decode_pem(content)
    return load_der(der) if der is not None else None


def decode_pem(content: bytes) -> bytes | None:
    """Decodes the base64 content of a PEM block; returns None when it is malformed."""
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def load_bundle(data: bytes) -> list[x509.Certificate] | None:
    """Parses DER certificates one after the other, or a PKCS #7 container; returns None when one is malformed.

    Octets behind the certificates that are not DER are ignored, as OpenSSL does.
    """
    elements = der_elements(data)
    if not elements:
        return None
    certificates = [load_der(element) for element in elements]
    if any(certificates):
        found = [certificate for certificate in certificates if certificate is not None]
        return found if len(found) == len(elements) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about containers in BER
        try:
            contained = pkcs7.load_der_pkcs7_certificates(data)
        except DAMAGED:
            return None
    read = [load_der(certificate.public_bytes(serialization.Encoding.DER)) for certificate in contained]
    return [certificate for certificate in read if certificate is not None] if all(read) else None


def der_elements(data: bytes) -> list[bytes]:
    """Returns the complete DER sequences at the start of `data`; beyond `MAX_ELEMENTS` one that nothing can read."""
    reader = DerReader(data)
    elements: list[bytes] = []
    while reader.peek() == _SEQUENCE:
        if len(elements) == MAX_ELEMENTS:
            return [*elements, b""]
        try:
            elements.append(reader.read_whole())
        except ValueError:
            break
    return elements


def is_other_structure(data: bytes) -> bool:
    """Whether this is a revocation list, a request or a public key in DER."""
    for load in (x509.load_der_x509_crl, x509.load_der_x509_csr, serialization.load_der_public_key):
        with contextlib.suppress(*DAMAGED):
            load(data)
            return True
    return False


def certificate_fields(certificate: x509.Certificate) -> dict[str, Any]:
    """Returns the fields of a section entry that come from the certificate itself."""
    kind, bits = key_type_and_size(certificate)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "kind": kind,
        "bits": bits,
        "is_ca": is_ca(certificate),
        "self_signed": certificate.subject == certificate.issuer and _is_signed_by(certificate, certificate),
    }


def key_type_and_size(certificate: x509.Certificate) -> tuple[str, int]:
    """Returns type and bits of the public key."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa", key.key_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "ec", key.key_size
    if isinstance(key, dsa.DSAPublicKey):
        return "dsa", key.key_size
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519", 256
    return ("ed448", 456) if isinstance(key, ed448.Ed448PublicKey) else ("unknown", 0)


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the certificate is that of an authority."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *DAMAGED):
        return False


def subject_names(certificate: x509.Certificate) -> set[str] | None:
    """Returns common names, DNS names and URIs; None when they cannot be read."""
    names = {str(name.value) for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    except DAMAGED:
        return None
    names |= set(alternative.get_values_for_type(x509.DNSName))
    return names | set(alternative.get_values_for_type(x509.UniformResourceIdentifier))


def find_issuer(certificate: x509.Certificate, candidates: Sequence[x509.Certificate]) -> x509.Certificate | None:
    """Returns the candidate that signed the certificate, matched by name and signature."""
    named = (candidate for candidate in candidates if candidate.subject == certificate.issuer)
    return next((candidate for candidate in named if _is_signed_by(certificate, candidate)), None)


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - a bad signature and an unknown algorithm have no common class
        return False
    return True


def _is_same_authority(certificate: x509.Certificate, anchor: x509.Certificate) -> bool:
    if certificate.subject != anchor.subject or certificate.version is not x509.Version.v3:
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == anchor.public_key().public_bytes(*form)


def verify_chain(
    certificate: x509.Certificate, known: Sequence[x509.Certificate], store: Sequence[x509.Certificate], now: datetime
) -> tuple[str, str]:
    """Verifies the chain to the trust store, at a time within the certificate's validity.

    Returns:
        `trusted`, or `untrusted` or `notchecked` with the reason.
    """
    if not store:
        return "notchecked", "there is no trust store"
    if any(_is_same_authority(certificate, anchor) for anchor in store):
        return "trusted", ""  # signed by another authority too, for devices that do not know this one
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    at = min(max(now, start), max(start, end - timedelta(seconds=1)))
    authority = (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, _check_is_ca)
        .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _check_may_sign)
    )
    try:
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store(list(store)))
            .time(at)
            .max_chain_depth(_MAX_CHAIN)
            .extension_policies(ca_policy=authority, ee_policy=verification.ExtensionPolicy.permit_all())
            .build_client_verifier()
        )
        verifier.verify(certificate, [candidate for candidate in known if is_ca(candidate)])
    except verification.VerificationError as e:
        return _chain_error(certificate, known, store, str(e))
    except DAMAGED as e:
        return "notchecked", str(e)[:_MAX_REASON]
    return "trusted", ""


def _chain_error(
    certificate: x509.Certificate, known: Sequence[x509.Certificate], store: Sequence[x509.Certificate], error: str
) -> tuple[str, str]:
    issuer = find_issuer(certificate, [*store, *known])
    if issuer is None:
        return "untrusted", "none of the known authorities signed it"
    if issuer is certificate or issuer == certificate:
        return "untrusted", "it is self-signed, and not in the trust store"
    unsupported = next((reason for part, reason in _UNSUPPORTED if part in error), None)
    if unsupported is not None:
        if not _leads_to_store(certificate, known, store):
            return "untrusted", "its chain does not lead to the trust store"
        if {"ed25519", "ed448"} & {key_type_and_size(certificate)[0], key_type_and_size(issuer)[0]}:
            return "notchecked", "chains with Ed25519 or Ed448 keys cannot be verified"
        return "notchecked", unsupported
    return "untrusted", error.removeprefix("validation failed: ").removeprefix("candidates exhausted: ")[:_MAX_REASON]


def _leads_to_store(
    certificate: x509.Certificate, known: Sequence[x509.Certificate], store: Sequence[x509.Certificate]
) -> bool:
    """Whether names and signatures lead to the trust store, whatever the certificates allow."""
    for _ in range(_MAX_CHAIN):
        if find_issuer(certificate, store) is not None:
            return True
        issuer = find_issuer(certificate, known)
        if issuer is None or issuer == certificate:
            return False
        certificate = issuer
    return False


def _check_is_ca(
    _policy: verification.Policy, _certificate: x509.Certificate, extension: x509.BasicConstraints
) -> None:
    if not extension.ca:
        raise ValueError("its issuer is not an authority")


def _check_may_sign(
    _policy: verification.Policy, _certificate: x509.Certificate, extension: x509.KeyUsage | None
) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("its issuer may not sign certificates")
