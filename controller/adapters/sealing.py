"""`SecretSealer` by AES-256-GCM, with a key in a file beside the store: a copy of the store lacks it."""

import base64
import contextlib
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controller.adapters.files import SECRET_MODE, read_secret, write_file
from controller.ports.errors import SettingsError
from controller.ports.factors import SealError, SecretSealer

KEY_SUFFIX: Final = ".factor-key"  # of the file beside the store, after the store's name
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class FileSealer(SecretSealer):
    """`name`: of the key's file, for errors."""

    def __init__(self, key: bytes, name: str) -> None:
        self._name = name
        self._cipher = AESGCM(key)

    def seal(self, account_id: str, secret: bytes) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret, account_id.encode())).decode()

    def open(self, account_id: str, sealed: str) -> bytes:
        try:
            raw = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], account_id.encode())
        except (ValueError, InvalidTag) as e:
            text = f"a TOTP secret cannot be opened: {self._name} beside the store is not the key it was sealed with"
            raise SealError(text) from e


def open_sealer(path: Path) -> FileSealer:
    """The sealer with the key in `path`, which is created with mode 0600 if it is absent.

    Raises:
        SettingsError: it cannot be read or written, others can read it, or it is no such key.
    """
    try:
        if not path.exists():
            key = base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n"
            with contextlib.suppress(FileExistsError):  # of another process, at the same moment
                write_file(path, key, SECRET_MODE, replace=False)
    except OSError as e:
        raise SettingsError(f"{path}: the key of second factors cannot be written: {e.strerror}") from e
    return FileSealer(read_sealing_key(path), path.name)


def read_sealing_key(path: Path) -> bytes:
    """The key in `path`.

    Raises:
        SettingsError: it cannot be read, others can read it, or it is no such key.
    """
    text = read_secret(path, "the key of second factors")
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise SettingsError(f"{path}: no key of second factors; put back the one of a backup, or move the file away")
    return key
