"""The certificate authority: parses requests, signs certificates and revocation lists."""

import hashlib
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from controller.adapters.x509 import building, folder
from controller.adapters.x509.building import DER, PEM
from controller.domain.identity.certificates import Certificate, CertificateKind, ValidityPeriod, key_weakness
from controller.ports.certificates import (
    AuthorityError,
    AuthorityInfo,
    CertificateAuthority,
    CertificateRequest,
    CertificateRequestRefusedError,
    PublishedCrl,
)
from schemas.pem import MAX_CHAIN, PemError, check_chain, fingerprint, read_certificate, read_certificates, read_request

MAX_REQUEST: Final = 8 * 1024  # bytes of a request in PEM


class X509Authority(CertificateAuthority):
    """`controller.ports.certificates.Authority` with the files of a folder."""

    def __init__(self, material: folder.AuthorityMaterial, crl_base: str = "") -> None:
        """`crl_base`: URL of the lists, instead of the one in the issuing certificate.

        Raises:
            AuthorityError: neither has a URL.
        """
        self._material = material
        self._base = crl_base or folder.crl_base(material.issuing)
        if not self._base:
            text = "devices could not find the revocation lists: set authority.crl_url to http://host:port"
            raise AuthorityError(text)
        self._issuer = building.key_identifier(material.key.public_key())
        pairs = ((material.issuing, material.key), *material.former)
        self._signers = {building.key_identifier(key.public_key()): (subject.subject, key) for subject, key in pairs}
        self._where = folder.crl_address(self._base, self._issuer)

    @property
    def issuer(self) -> str:
        """Key identifier of the issuing certificate, in hex."""
        return self._issuer

    @property
    def former_issuers(self) -> tuple[str, ...]:
        return tuple(name for name in self._signers if name != self._issuer)

    @property
    def info(self) -> AuthorityInfo:
        """Returns fingerprint, expiry and CRL addresses, for operators."""
        root, issuing = self._material.root, self._material.issuing
        return AuthorityInfo(
            fingerprint=fingerprint(root),
            subject=root.subject.rfc4514_string(),
            issuing_subject=issuing.subject.rfc4514_string(),
            issuing_end=issuing.not_valid_after_utc.timestamp(),
            root_end=root.not_valid_after_utc.timestamp(),
            crl_url=self._where,
            is_imported=folder.crl_base(issuing) != self._base,
        )

    @property
    def chain(self) -> str:
        """The chain after a leaf: the issuing certificate, unless it is the root."""
        if self._material.issuing == self._material.root:
            return ""
        return self._material.issuing.public_bytes(PEM).decode()

    @property
    def trust(self) -> str:
        """The trust anchor: the root."""
        return self._material.root.public_bytes(PEM).decode()

    def own(self, now: float) -> Certificate:
        """The issuing certificate as an entry of the registry."""
        issuing = self._material.issuing
        start = issuing.not_valid_before_utc.timestamp()
        return Certificate(
            serial=building.serial_of(issuing),
            issuer=building.key_identifier(self._material.root.public_key()),
            kind=CertificateKind.ISSUING,
            name=_common_name(issuing.subject) or issuing.subject.rfc4514_string()[:64],
            start=start,
            end=issuing.not_valid_after_utc.timestamp(),
            issued_at=min(now, start),
            origin="operator",
            key=building.key_digest(issuing.public_key()),
            pem=issuing.public_bytes(PEM).decode(),
        )

    def read(self, pem: str) -> CertificateRequest:
        if len(pem) > MAX_REQUEST:
            raise CertificateRequestRefusedError("request_too_large", f"a request has at most {MAX_REQUEST} bytes")
        try:
            found = read_request(pem)
            public = found.public_key()
            is_signed = found.is_signature_valid
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise CertificateRequestRefusedError("request_malformed", "not a certificate request in PEM") from e
        if not is_signed:
            raise CertificateRequestRefusedError("request_forged", "the request is not signed by the key that is in it")
        weak = key_weakness(building.describe_key(public))
        if weak:
            raise CertificateRequestRefusedError("key_weak", f"no certificate for a weak key: {weak}")
        name = _common_name(found.subject)
        if name is None or len(list(found.subject)) != 1:
            raise CertificateRequestRefusedError(
                "name_malformed", "a request has one common name, the device's id, and no more"
            )
        return CertificateRequest(name, building.key_digest(public), found.public_bytes(PEM).decode())

    def issue(
        self,
        request: CertificateRequest,
        kind: CertificateKind,
        when: ValidityPeriod,
        now: float,
        origin: str,
        hosts: Sequence[str] = (),
    ) -> Certificate:
        """Issues a certificate; only key and name of the request get into it."""
        public = read_request(request.pem).public_key()
        draft = building.leaf(kind, request.name, public, when, hosts, self._where)
        made = building.signed(draft, self._material.issuing.subject, self._material.key)
        return Certificate(
            serial=building.serial_of(made),
            issuer=self._issuer,
            kind=kind,
            name=request.name,
            start=when.start,
            end=made.not_valid_after_utc.timestamp(),
            issued_at=now,
            origin=origin,
            key=request.key,
            pem=made.public_bytes(PEM).decode(),
        )

    def revocations(
        self, issuer: str, revoked: Sequence[Certificate], number: int, start: float, next_update: float
    ) -> PublishedCrl:
        subject, key = self._signers[issuer]
        made = building.revocation_list(subject, key, revoked, number, start, next_update)
        return PublishedCrl(issuer, made.public_bytes(DER), made.public_bytes(PEM), next_update)

    def root_revocations(self) -> PublishedCrl | None:
        found = self._material.root_list
        if found is None or found.next_update_utc is None:
            return None
        name = building.key_identifier(self._material.root.public_key())
        return PublishedCrl(name, found.public_bytes(DER), found.public_bytes(PEM), found.next_update_utc.timestamp())

    def verify(self, certificate: Certificate, message: bytes, signature: bytes) -> bool:
        public = read_certificate(certificate.pem).public_key()
        try:
            if isinstance(public, ec.EllipticCurvePublicKey):
                public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            elif isinstance(public, ed25519.Ed25519PublicKey):
                public.verify(signature, message)
            elif isinstance(public, rsa.RSAPublicKey):
                scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
                public.verify(signature, message, scheme, hashes.SHA256())
            else:
                return False
        except InvalidSignature:
            return False
        return True


def registered(pem: bytes, now: float) -> Certificate:
    """Returns a certificate of another issuer as an entry of the registry, so that it can be revoked.

    Raises:
        AuthorityError: not one certificate, alone or with its chain, or one without a common name.
    """
    try:
        found, *issuers = read_certificates(pem, 1 + MAX_CHAIN)
        check_chain((found, *issuers))
    except PemError as e:
        raise AuthorityError(f"not one certificate with its chain: {e}") from e
    name = _common_name(found.subject)
    if name is None:
        raise AuthorityError("this certificate has no common name")
    return Certificate(
        serial=building.serial_of(found),
        issuer=_issuer_of(found),
        kind=CertificateKind.CLIENT,
        name=name,
        start=found.not_valid_before_utc.timestamp(),
        end=found.not_valid_after_utc.timestamp(),
        issued_at=min(now, found.not_valid_before_utc.timestamp()),
        origin="import",
        key=building.key_digest(found.public_key()),
        pem=found.public_bytes(PEM).decode(),
    )


def _issuer_of(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        found = None
    return (
        hashlib.sha1(certificate.issuer.public_bytes(), usedforsecurity=False).hexdigest() if not found else found.hex()
    )


def _common_name(name: x509.Name) -> str | None:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else None
