"""How a public key is written in configurations; read here without the library that makes a key of it."""

import base64
import binascii
import hashlib
from typing import Final

KEY_PREFIX: Final = "ed25519:"
_KEY_BYTES: Final = 32


def raw_key(text: str) -> bytes:
    """The 32 bytes of `ed25519:` and base64.

    Raises:
        ValueError: another kind of key, or not 32 bytes of base64.
    """
    if not text.startswith(KEY_PREFIX):
        raise ValueError(f"a controller key starts with {KEY_PREFIX!r}")
    try:
        raw = base64.b64decode(text[len(KEY_PREFIX) :], validate=True)
    except binascii.Error as e:
        raise ValueError("a controller key is base64 after its prefix") from e
    if len(raw) != _KEY_BYTES:
        raise ValueError(f"an ed25519 key has {_KEY_BYTES} bytes, this one has {len(raw)}")
    return raw


def key_name(text: str) -> str:
    """A key's name: the first 16 hex digits of the SHA-256 of its raw bytes.

    Raises:
        ValueError: as `raw_key`.
    """
    return hashlib.sha256(raw_key(text)).hexdigest()[:16]
