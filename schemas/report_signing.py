"""The signed envelope around a report: DSSE, signed with the key of the device's certificate.

The format is that of commands, with another payload type and larger bounds. The key may be EC, Ed25519 or RSA; its id
is the SHA-256 of its SubjectPublicKeyInfo.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from pydantic import Field, StringConstraints, ValidationError

from schemas.base import MAX_POSTURE_BYTES, StrictWireModel
from schemas.signing import SignatureError, to_be_signed

REPORT_PAYLOAD_TYPE: Final = "application/vnd.cordon.report.v1+json"
ENVELOPE_START: Final = b'{"payloadType":'  # every envelope starts with it, no report does
MAX_KEY_BYTES: Final = 1024  # bytes of a public key
_PSS: Final = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
_Base64 = Annotated[str, StringConstraints(max_length=MAX_POSTURE_BYTES, pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
_KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Signature(StrictWireModel):
    keyid: _KeyId
    sig: Annotated[_Base64, Field(max_length=1024)]


class SignedReport(StrictWireModel):
    """A report in its envelope; field names are those of the DSSE specification."""

    payloadType: Literal["application/vnd.cordon.report.v1+json"]  # noqa: N815 - the specification's name
    payload: _Base64
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=1, fail_fast=True)]


@dataclass(frozen=True, slots=True)
class UnverifiedReport:
    """A parsed envelope whose signature was not verified yet."""

    payload: bytes
    keyid: str
    signature: bytes


def public_key_der(key: PublicKey) -> bytes:
    """Returns the SubjectPublicKeyInfo of a key, in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def report_key_id(key: PublicKey) -> str:
    """Returns the id of a key: 64 hex digits."""
    return hashlib.sha256(public_key_der(key)).hexdigest()


def load_public_key(der: bytes) -> PublicKey:
    """Parses a SubjectPublicKeyInfo in DER.

    Raises:
        ValueError: malformed, or a kind of key that cannot sign reports.
    """
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise ValueError("not a public key") from e
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise ValueError("a key of this kind cannot sign reports")  # noqa: TRY004 - bad content, not a caller's error
    return key


def sign_report(report: bytes, key: PrivateKey) -> bytes:
    """Signs a report and returns the envelope as JSON."""
    message = to_be_signed(REPORT_PAYLOAD_TYPE, report)
    match key:
        case ec.EllipticCurvePrivateKey():
            signature = key.sign(message, ec.ECDSA(SHA256()))
        case ed25519.Ed25519PrivateKey():
            signature = key.sign(message)
        case _:
            signature = key.sign(message, _PSS, SHA256())
    return b'%b"%b","payload":"%b","signatures":[{"keyid":"%b","sig":"%b"}]}' % (
        ENVELOPE_START,
        REPORT_PAYLOAD_TYPE.encode(),
        base64.b64encode(report),
        report_key_id(key.public_key()).encode(),
        base64.b64encode(signature),
    )


def parse_signed_report(raw: bytes) -> UnverifiedReport:
    """Parses an envelope without verifying it.

    Raises:
        SignatureError: it is malformed.
    """
    try:
        envelope = SignedReport.model_validate_json(raw)
        (signature,) = envelope.signatures
        payload = base64.b64decode(envelope.payload, validate=True)
        return UnverifiedReport(payload, signature.keyid, base64.b64decode(signature.sig, validate=True))
    except (ValidationError, binascii.Error) as e:
        raise SignatureError("not a signed report") from e


def is_signed_by(report: UnverifiedReport, key: PublicKey) -> bool:
    """Verifies the signature with the key."""
    message = to_be_signed(REPORT_PAYLOAD_TYPE, report.payload)
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(report.signature, message, ec.ECDSA(SHA256()))
            case ed25519.Ed25519PublicKey():
                key.verify(report.signature, message)
            case _:
                key.verify(report.signature, message, _PSS, SHA256())
    except InvalidSignature:
        return False
    return True
