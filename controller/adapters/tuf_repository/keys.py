"""Key files of the repository: offline keys with a passphrase, online keys readable by the controller only."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from controller.adapters.files import SECRET_MODE, read_secret, write_file
from controller.domain.passphrases import passphrase_weakness
from controller.ports.errors import SettingsError
from controller.ports.updates import UpdatesError

PassphrasePrompt = Callable[[Path, bool], str]
"""Asks for the passphrase of a key file; the flag says whether the file is being made."""
ROLES: Final = ("root", "targets", "snapshot", "timestamp")
OFFLINE: Final = ("root", "targets")
MAX_KEYS: Final = 16  # of one role
_MAX_KEY_BYTES: Final = 64 * 1024


def make_offline(folder: Path, role: str, count: int, ask: PassphrasePrompt) -> list[CryptoSigner]:
    """Creates key files `ROLE-N.pem`, each with its passphrase; continues the existing numbers.

    Raises:
        UpdatesError: a passphrase is weak, or the folder cannot be written.
    """
    first = 1 + max((number_of(path) for path in key_files(folder, role)), default=0)
    signers = []
    for number in range(first, first + count):
        path = folder / f"{role}-{number}.pem"
        passphrase = ask(path, True)
        if trouble := passphrase_weakness(passphrase):
            raise UpdatesError(
                f"the passphrase of {path.name} is too weak: {trouble}; cordon-agent passphrase makes one"
            )
        key = Ed25519PrivateKey.generate()
        _write(path, key, BestAvailableEncryption(passphrase.encode()))
        signers.append(CryptoSigner(key))
    return signers


def make_online(folder: Path, role: str) -> CryptoSigner:
    """Creates or replaces the key of an online role, without a passphrase, readable by its owner only."""
    key = Ed25519PrivateKey.generate()
    path = folder / f"{role}.pem"
    fresh = folder / f".{role}.pem.new"
    fresh.unlink(missing_ok=True)
    _write(fresh, key, NoEncryption())
    fresh.replace(path)
    return CryptoSigner(key)


def load_online(folder: Path, role: str) -> CryptoSigner:
    """Loads the key of an online role.

    Raises:
        UpdatesError: it is missing, readable by others, or not a key.
    """
    return _load(folder / f"{role}.pem", None)


def load_offline(
    folder: Path, role: str, wanted: Sequence[str], threshold: int, ask: PassphrasePrompt
) -> list[CryptoSigner]:
    """Opens as many key files of a role as the threshold needs; `wanted`: the ids of valid keys.

    Raises:
        UpdatesError: there are too few, or a passphrase is wrong.
    """
    signers: list[CryptoSigner] = []
    for path in key_files(folder, role):
        if len(signers) == threshold:
            break
        signer = _load(path, ask(path, False))
        if signer.public_key.keyid in wanted:
            signers.append(signer)
    if len(signers) < threshold:
        raise UpdatesError(
            f"{threshold} keys of the role {role} have to sign, and {folder} holds {len(signers)} of them"
        )
    return signers


def key_files(folder: Path, role: str) -> list[Path]:
    """Returns the key files of a role in a folder, by number."""
    return sorted(folder.glob(f"{role}-*.pem"), key=number_of)


def number_of(path: Path) -> int:
    """Returns the N of `ROLE-N.pem`, or 0."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0


def _write(path: Path, key: Ed25519PrivateKey, protection: KeySerializationEncryption) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(path, pem, SECRET_MODE, replace=False)
    except OSError as e:
        raise UpdatesError(f"{path}: the key cannot be written: {e.strerror}") from e


def _load(path: Path, passphrase: str | None) -> CryptoSigner:
    try:
        pem = read_secret(path, "key", most=_MAX_KEY_BYTES)
    except SettingsError as e:
        raise UpdatesError(str(e)) from e
    try:
        key = load_pem_private_key(pem.encode(), None if passphrase is None else passphrase.encode())
    except (ValueError, TypeError) as e:
        raise UpdatesError(f"{path}: not a private key in PEM, or the passphrase is wrong") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise UpdatesError(f"{path}: not an Ed25519 key")
    return CryptoSigner(key)
