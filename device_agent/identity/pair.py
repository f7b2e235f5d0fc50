"""A key with its certificate, as one file or two; keys are made here and never leave the device."""

from dataclasses import dataclass
from pathlib import Path
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

from device_agent.errors import AgentError

MAX_FILE: Final = 64 * 1024  # bytes
RENEW_AT: Final = 2 / 3  # of the lifetime


class IdentityError(AgentError):
    """Key or certificate cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What matters of a certificate; times are Unix seconds, `serial` is in hex."""

    name: str
    serial: str
    start: float
    end: float
    key: bytes  # the public key as it stands in certificates

    @property
    def renew_at(self) -> float:
        """When the next one is due."""
        return self.start + (self.end - self.start) * RENEW_AT


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


def read_leaf(content: bytes) -> Leaf:
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
    return Leaf(
        name=str(names[0].value) if names else "",
        serial=f"{found.serial_number:x}",
        start=found.not_valid_before_utc.timestamp(),
        end=found.not_valid_after_utc.timestamp(),
        key=public_bytes(key),
    )


def read_file(path: Path) -> bytes:
    """A small file.

    Raises:
        IdentityError: not there, or too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as e:
        raise IdentityError(f"{path}: {e.strerror}") from e
    if len(content) > MAX_FILE:
        raise IdentityError(f"{path}: larger than {MAX_FILE} bytes")
    return content


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
