"""The controller's command-signing key Ed25519 in PEM; a file of it is readable by its owner only."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from controller.adapters.files import SECRET_MODE, read_secret, write_file
from controller.ports.errors import SettingsError
from schemas.secret_sources import SecretSource


def create_signing_key(path: Path) -> Ed25519PrivateKey:
    """Creates a key file, mode 0600.

    Raises:
        FileExistsError: the file exists; it is never overwritten.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_file(path, pem, SECRET_MODE, replace=False)
    return key


def load_signing_key(source: SecretSource) -> Ed25519PrivateKey:
    """Loads a key written by `create_signing_key`.

    Raises:
        SettingsError: it cannot be had, its file is readable by others, or it is not an Ed25519 key.
    """
    text = read_secret(source, "commands.signing_key")
    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError) as e:
        raise SettingsError(f"commands.signing_key: {source} is not a private key in PEM without a passphrase") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"commands.signing_key: {source} is not an Ed25519 key")
    return key
