"""One certificate, read and judged with cryptography's verifier; imported only by whoever has certificates."""

import base64
import binascii
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification

# What it will no longer read one day is no news for whoever reads the agent's log.
warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning, message="Parsed a ")
# Everything that cryptography may raise over bytes from elsewhere; its classes for them have no common one of its own.
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
_MAX_CHAIN: Final = 8
_MAX_REASON: Final = 200


def load_der(data: bytes) -> x509.Certificate | None:
    """A certificate in DER; None when it is none."""
    try:
        certificate = x509.load_der_x509_certificate(data)
        # Read lazily, and what cannot be read here would be missing later.
        _ = (certificate.subject, certificate.issuer, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        certificate.public_key()
    except DAMAGED:
        return None
    return certificate if certificate.serial_number >= 0 else None


def load_pem(content: bytes) -> x509.Certificate | None:
    """A certificate from between its PEM marks; None when it is damaged."""
    try:
        return load_der(base64.b64decode(b"".join(content.split()), validate=True))
    except (binascii.Error, ValueError):
        return None


def described(certificate: x509.Certificate) -> dict[str, Any]:
    """The fields of an entry that the certificate itself tells."""
    kind, bits = key_of(certificate)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "kind": kind,
        "bits": bits,
        "is_ca": is_ca(certificate),
        "self_signed": certificate.subject == certificate.issuer and _is_signed_by(certificate, certificate),
    }


def key_of(certificate: x509.Certificate) -> tuple[str, int]:
    """Kind and size of its key."""
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
    """Whether it may vouch for others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *DAMAGED):
        return False


def names_of(certificate: x509.Certificate) -> set[str] | None:
    """Its common names and alternative names; None when they cannot be read."""
    found = {str(name.value) for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
    try:
        more = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    except DAMAGED:
        return None
    found |= set(more.get_values_for_type(x509.DNSName))
    return found | set(more.get_values_for_type(x509.UniformResourceIdentifier))


def issuer_of(certificate: x509.Certificate, among: Sequence[x509.Certificate]) -> x509.Certificate | None:
    """Who signed it, by name and signature."""
    return next((one for one in among if one.subject == certificate.issuer and _is_signed_by(certificate, one)), None)


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - a bad signature and an unknown algorithm have no common class
        return False
    return True


def judge(
    certificate: x509.Certificate, known: Sequence[x509.Certificate], store: Sequence[x509.Certificate], now: datetime
) -> tuple[str, str]:
    """Whether a chain leads from it to the store, at a time when it was valid; with the reason when not."""
    if not store:
        return "notchecked", "there is no trust store"
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
        verifier.verify(certificate, [one for one in known if is_ca(one)])
    except verification.VerificationError as e:
        return _refused(certificate, known, store, str(e))
    except DAMAGED as e:
        return "notchecked", str(e)[:_MAX_REASON]
    return "trusted", ""


def _refused(
    certificate: x509.Certificate, known: Sequence[x509.Certificate], store: Sequence[x509.Certificate], words: str
) -> tuple[str, str]:
    why = words.removeprefix("validation failed: ").removeprefix("candidates exhausted: ")[:_MAX_REASON]
    issuer = issuer_of(certificate, [*store, *known])
    if issuer is None:
        return "untrusted", "none of the known authorities signed it"
    if issuer is certificate or issuer == certificate:
        return "untrusted", "it is self-signed, and not in the trust store"
    if "orbidden" in words and {"ed25519", "ed448"} & {key_of(certificate)[0], key_of(issuer)[0]}:
        # Its profile is that of the public web; that it does not take a sound algorithm says nothing of the chain.
        return "notchecked", "chains with Ed25519 or Ed448 keys cannot be verified"
    return "untrusted", why


def _check_is_ca(
    _policy: verification.Policy, _certificate: x509.Certificate, extension: x509.BasicConstraints
) -> None:
    if not extension.ca:
        raise ValueError("its issuer is no authority")


def _check_may_sign(
    _policy: verification.Policy, _certificate: x509.Certificate, extension: x509.KeyUsage | None
) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("its issuer may not sign certificates")
