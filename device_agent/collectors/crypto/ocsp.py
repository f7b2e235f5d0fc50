"""Asks the responder that a certificate names whether it was revoked; only where the configuration allows it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from device_agent.collectors.crypto.certificate_chain import DAMAGED, issuer_of
from device_agent.collectors.fetch import FetchError, fetch

MAX_ANSWER_BYTES: Final = 64 * 1024
_WORDS: Final = {
    ocsp.OCSPCertStatus.GOOD: "good",
    ocsp.OCSPCertStatus.REVOKED: "revoked",
    ocsp.OCSPCertStatus.UNKNOWN: "unknown",
}


def ask(certificate: x509.Certificate, issuers: Sequence[x509.Certificate], now: datetime) -> tuple[str, str]:
    """`good`, `revoked`, `unknown`, or `notchecked` with the reason."""
    url = responder_of(certificate)
    if url is None:
        return "notchecked", "it names no OCSP responder"
    issuer = issuer_of(certificate, issuers)
    if issuer is None:
        return "notchecked", "OCSP needs its issuer"
    # The responder looks the certificate up by this hash; it protects nothing, and others are rarely understood.
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1()).build()  # noqa: S303
    headers = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
    body = request.public_bytes(serialization.Encoding.DER)
    try:
        answer = ocsp.load_der_ocsp_response(fetch(url, max_bytes=MAX_ANSWER_BYTES, body=body, headers=headers))
        return _judge(answer, certificate, issuer, now)
    except FetchError as e:
        return "notchecked", f"OCSP: {e}"
    except DAMAGED as e:
        return "notchecked", f"OCSP: the answer cannot be read: {str(e)[:100]}"


def responder_of(certificate: x509.Certificate) -> str | None:
    """The address of the responder that it names."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, *DAMAGED):
        return None
    wanted = (one.access_location for one in access if one.access_method == AuthorityInformationAccessOID.OCSP)
    return next((str(place.value) for place in wanted if isinstance(place, x509.UniformResourceIdentifier)), None)


def _judge(
    answer: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> tuple[str, str]:
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return "notchecked", f"OCSP: the responder says {answer.response_status.name.lower()}"
    if answer.serial_number != certificate.serial_number:
        return "notchecked", "OCSP: the answer is about another certificate"
    if not any(_is_signed_by(answer, one) for one in _signers(answer, issuer, now)):
        return "notchecked", "OCSP: the answer has no good signature"
    until = answer.next_update_utc
    if answer.this_update_utc > now or (until is not None and until <= now):
        return "notchecked", "OCSP: the answer is out of date"
    return _WORDS[answer.certificate_status], ""


def _signers(answer: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> list[x509.Certificate]:
    """Who may answer: the issuer, or whom it named for this by a certificate."""
    found = [issuer]
    for one in answer.certificates:
        try:
            one.verify_directly_issued_by(issuer)
            usage = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (x509.ExtensionNotFound, InvalidSignature, *DAMAGED):
            continue
        is_in_time = one.not_valid_before_utc <= now <= one.not_valid_after_utc
        if is_in_time and ExtendedKeyUsageOID.OCSP_SIGNING in usage:
            found.append(one)
    return found


def _is_signed_by(answer: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, signature, signed = signer.public_key(), answer.signature, answer.tbs_response_bytes
    algorithm = answer.signature_hash_algorithm
    try:
        if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        elif isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(signature, signed, ec.ECDSA(algorithm))
        else:
            return False
    except (InvalidSignature, *DAMAGED):
        return False
    return True
