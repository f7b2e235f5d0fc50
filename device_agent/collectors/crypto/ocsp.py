"""OCSP: asks the responder named in a certificate for its status, only where the configuration allows it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from device_agent.collectors.crypto.certificate_chain import DAMAGED, find_issuer
from device_agent.collectors.crypto.fetch import FetchError, IpNetwork, fetch_public

MAX_RESPONSE_BYTES: Final = 64 * 1024
MAX_ANSWERS: Final = 1024  # that are kept
_MAX_AGE: Final = timedelta(days=7)  # of a response that does not say how long it holds: there is no nonce
_STATUSES: Final = {
    ocsp.OCSPCertStatus.GOOD: "good",
    ocsp.OCSPCertStatus.REVOKED: "revoked",
    ocsp.OCSPCertStatus.UNKNOWN: "unknown",
}


class OcspAnswer(NamedTuple):
    """What a responder signed: `good`, `revoked` or `unknown`; from when, and until when it holds, in Unix seconds."""

    status: str
    at: float
    until: float


class OcspMemory:
    """The newest answer about each certificate, by its SHA-256.

    There is no nonce: whoever is on the way could send an older answer, from before the revocation, or none. An older
    one does not count while the newest holds; a revocation counts until a newer answer.
    """

    def __init__(self, answers: Mapping[str, Sequence[Any]] | None = None) -> None:
        """`answers`: as `state` returned them."""
        self._answers = {
            name: OcspAnswer(str(status), float(at), float(until))
            for name, (status, at, until) in (answers or {}).items()
        }

    def state(self) -> dict[str, Sequence[Any]]:
        """Returns the answers in a form that JSON has."""
        return {name: list(answer) for name, answer in self._answers.items()}

    def check(
        self,
        certificate: x509.Certificate,
        issuers: Sequence[x509.Certificate],
        now: datetime,
        networks: Sequence[IpNetwork] = (),
    ) -> tuple[str, str]:
        """Returns `good`, `revoked`, `unknown`, or `notchecked` with the reason.

        The caller has verified the chain: the URL of another certificate may be anybody's. `networks`: where responders
        may be besides public addresses.
        """
        given = _ask(certificate, issuers, now, networks)
        name = certificate.fingerprint(hashes.SHA256()).hex()
        known = self._answers.pop(name, None)
        newest = known if isinstance(given, str) else _newest(known, given, now)
        if newest is not None:
            while len(self._answers) >= MAX_ANSWERS:  # the one that was needed the longest ago
                del self._answers[next(iter(self._answers))]
            self._answers[name] = newest
        if isinstance(given, str):
            is_revoked = known is not None and known.status == "revoked"
            return ("revoked", f"by an earlier answer; {given}") if is_revoked else ("notchecked", given)
        assert newest is not None
        return newest.status, "" if newest is given else "OCSP: the response is older than one before, which counts"


def _newest(known: OcspAnswer | None, given: OcspAnswer, now: datetime) -> OcspAnswer:
    if known is None or known.at < given.at:
        return given
    if known.status == "revoked" or (known.at > given.at and known.until > now.timestamp()):
        return known
    return given


def _ask(
    certificate: x509.Certificate,
    issuers: Sequence[x509.Certificate],
    now: datetime,
    networks: Sequence[IpNetwork],
) -> OcspAnswer | str:
    """Returns the responder's valid answer, or why there is none."""
    url = responder_url(certificate)
    if url is None:
        return "it names no OCSP responder"
    issuer = find_issuer(certificate, issuers)
    if issuer is None:
        return "OCSP needs its issuer"
    # The hash only identifies the certificate; few responders understand another one.
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1()).build()  # noqa: S303
    headers = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
    body = request.public_bytes(serialization.Encoding.DER)
    try:
        raw = fetch_public(url, max_bytes=MAX_RESPONSE_BYTES, body=body, headers=headers, networks=networks)
        response = ocsp.load_der_ocsp_response(raw)
        return _evaluate_response(response, certificate, issuer, now)
    except FetchError as e:
        return f"OCSP: {e}"
    except DAMAGED as e:
        return f"OCSP: the response cannot be read: {str(e)[:100]}"


def responder_url(certificate: x509.Certificate) -> str | None:
    """Returns the URL of the responder named in the certificate."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, *DAMAGED):
        return None
    locations = (entry.access_location for entry in access if entry.access_method == AuthorityInformationAccessOID.OCSP)
    return next((str(url.value) for url in locations if isinstance(url, x509.UniformResourceIdentifier)), None)


def _evaluate_response(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> OcspAnswer | str:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return f"OCSP: the responder answered {response.response_status.name.lower()}"
    if response.serial_number != certificate.serial_number:
        return "OCSP: the response is for another certificate"
    if not any(_is_signed_by(response, signer) for signer in _authorised_responders(response, issuer, now)):
        return "OCSP: the response has no valid signature"
    until = response.next_update_utc or response.this_update_utc + _MAX_AGE
    if response.this_update_utc > now or until <= now:
        return "OCSP: the response is out of date"
    since = response.this_update_utc
    return OcspAnswer(_STATUSES[response.certificate_status], since.timestamp(), until.timestamp())


def _authorised_responders(
    response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime
) -> list[x509.Certificate]:
    """Returns the issuer and the valid responder certificates that it issued. [RFC 6960, 4.2.2.2]"""
    responders = [issuer]
    for certificate in response.certificates:
        try:
            certificate.verify_directly_issued_by(issuer)
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (x509.ExtensionNotFound, InvalidSignature, *DAMAGED):
            continue
        is_valid = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
        if is_valid and ExtendedKeyUsageOID.OCSP_SIGNING in usage:
            responders.append(certificate)
    return responders


def _is_signed_by(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, signature, signed = signer.public_key(), response.signature, response.tbs_response_bytes
    algorithm = response.signature_hash_algorithm
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
