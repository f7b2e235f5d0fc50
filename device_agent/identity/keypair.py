"""A key with its certificate, as one file or two; keys are made here and never leave the device."""

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

MAX_ADDRESSES: Final = 4


def new_key() -> Any:
    """A fresh key: P-256, which every broker takes."""
    return ec.generate_private_key(ec.SECP256R1())


def key_text(key: Any, passphrase: str | None) -> bytes:
    """The key in PEM, under a passphrase where there is one."""
    protection = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))


def read_key(content: bytes, passphrase: str | None) -> Any:
    """A key from PEM; certificates beside it in the same text are passed over.

    Raises:
        IdentityError: none, or another passphrase.
    """
    try:
        return load_pem_private_key(_block(content), None if passphrase is None else passphrase.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError("the key cannot be opened: not a key in PEM, or another passphrase") from e


def _block(content: bytes) -> bytes:
    start = next((at for word in (b"-----BEGIN ENCRYPTED PRIVATE", b"-----BEGIN PRIVATE", b"-----BEGIN EC PRIVATE",
                                  b"-----BEGIN RSA PRIVATE") if (at := content.find(word)) >= 0), -1)  # fmt: skip
    if start < 0:
        raise IdentityError("there is no private key in it")
    return content[start:]


def read_leaf(content: bytes) -> CertificateInfo:
    """The first certificate of a chain.

    Raises:
        IdentityError: none.
    """
    try:
        found = x509.load_pem_x509_certificate(content)
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = found.public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise IdentityError("not a certificate in PEM") from e
    return CertificateInfo(
        name=str(names[0].value) if names else "",
        serial=f"{found.serial_number:x}",
        start=found.not_valid_before_utc.timestamp(),
        end=found.not_valid_after_utc.timestamp(),
        key=public_bytes(key),
    )


def common_names(content: bytes) -> list[str]:
    """All common names of a certificate that `read_leaf` takes."""
    subject = x509.load_pem_x509_certificate(content).subject
    return [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def list_addresses(content: bytes) -> list[str]:
    """Where the list is that could name the first certificate of a chain; none where it does not say."""
    try:
        found = x509.load_pem_x509_certificate(content)
        points = found.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    names = [name for point in points for name in point.full_name or ()]
    return [one.value for one in names if isinstance(one, x509.UniformResourceIdentifier)][:MAX_ADDRESSES]


def public_bytes(public: Any) -> bytes:
    """A public key as it stands in certificates."""
    return bytes(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def request(key: Any, device_id: str) -> str:
    """A certificate request (PEM): the id and the key, nothing else."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, _hash(key))
    return made.public_bytes(Encoding.PEM).decode()


def sign(key: Any, message: bytes) -> bytes:
    """The key's signature over a message, in the way that goes with its kind."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
        return key.sign(message, scheme, hashes.SHA256())
    raise IdentityError("a key of this kind cannot prove anything")


def _hash(key: Any) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
