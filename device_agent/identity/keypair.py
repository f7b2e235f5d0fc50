"""Private keys and their certificates: generated, read, written, used. Imports cryptography: loaded when needed."""

from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from device_agent.host.certificate import CertificateInfo, IdentityError

MAX_CRL_URLS: Final = 4
_KEY_HEADERS: Final = (
    b"-----BEGIN ENCRYPTED PRIVATE",
    b"-----BEGIN PRIVATE",
    b"-----BEGIN EC PRIVATE",
    b"-----BEGIN RSA PRIVATE",
)


def generate_key() -> Any:
    """Returns a new private key on P-256, which every broker supports."""
    return ec.generate_private_key(ec.SECP256R1())


def private_key_pem(key: Any, passphrase: str | None) -> bytes:
    """Returns a private key in PEM, encrypted when there is a passphrase."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def read_key(content: bytes, passphrase: str | None) -> Any:
    """Reads a private key from PEM, ignoring certificates in the same text (IdentityError)."""
    start = next((at for header in _KEY_HEADERS if (at := content.find(header)) >= 0), -1)
    if start < 0:
        raise IdentityError("there is no private key in it")
    try:
        return load_pem_private_key(content[start:], None if passphrase is None else passphrase.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError("the key cannot be opened: not a key in PEM, or another passphrase") from e


def load_leaf_certificate(content: bytes) -> CertificateInfo:
    """Reads the first certificate of a PEM chain of this device's own files (IdentityError).

    What comes from outside is read by `schemas.pem`.
    """
    try:
        return certificate_info(x509.load_pem_x509_certificate(content))
    except ValueError as e:
        raise IdentityError("not a certificate in PEM") from e


def certificate_info(certificate: x509.Certificate) -> CertificateInfo:
    """Returns the fields of a certificate that the agent uses (IdentityError)."""
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise IdentityError("a certificate that cannot be used") from e
    return CertificateInfo(
        name=str(names[0].value) if names else "",
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        public_key_der=public_key_der(key),
    )


def common_names(content: bytes) -> list[str]:
    """Returns all common names of a certificate that `load_leaf_certificate` accepts."""
    subject = x509.load_pem_x509_certificate(content).subject
    return [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def crl_distribution_points(certificate: x509.Certificate) -> list[str]:
    """Returns the CRL addresses in a certificate, an empty list without any."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    names = [name for point in points for name in point.full_name or ()]
    return [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)][:MAX_CRL_URLS]


def public_key_der(public: Any) -> bytes:
    """Returns a public key as certificates contain it."""
    return bytes(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def make_csr(key: Any, device_id: str) -> str:
    """Returns a certificate signing request in PEM with the device id as common name."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, _hash_algorithm(key))
    return csr.public_bytes(Encoding.PEM).decode()


def sign(key: Any, message: bytes) -> bytes:
    """Returns the signature of a message by an EC (SHA-256), Ed25519 or RSA (PSS, SHA-256) key (IdentityError)."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
        return key.sign(message, scheme, hashes.SHA256())
    raise IdentityError("a key of this type cannot prove an identity")


def _hash_algorithm(key: Any) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
