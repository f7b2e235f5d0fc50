"""New keys with certificate requests, for the CLI."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

from controller.adapters.x509.building import PEM, named


def new_request(name: str) -> tuple[bytes, str]:
    """Returns a P-256 key (PKCS #8, PEM, no passphrase) and its request for `name` (PEM)."""
    key = generate_private_key(SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(named(name)).sign(key, hashes.SHA256())
    return key.private_bytes(PEM, PrivateFormat.PKCS8, NoEncryption()), request.public_bytes(PEM).decode()
