"""Parses public keys as configurations contain them, without loading `cryptography`."""

import base64
import binascii
import hashlib
from typing import Final

KEY_PREFIX: Final = "ed25519:"
_KEY_BYTES: Final = 32


def raw_public_key(text: str) -> bytes:
    """Returns the 32 bytes of a key written as `ed25519:` and base64.

    Raises:
        ValueError: another kind of key, or not 32 bytes of base64.
    """
    if not text.startswith(KEY_PREFIX):
        raise ValueError(f"a controller key starts with {KEY_PREFIX!r}")
    try:
        raw = base64.b64decode(text[len(KEY_PREFIX) :], validate=True)
    except binascii.Error as e:
        raise ValueError("a controller key is base64 after its prefix") from e
    if base64.b64encode(raw).decode() != text[len(KEY_PREFIX) :]:
        raise ValueError("a controller key is canonical base64: another text would be the same key")
    if len(raw) != _KEY_BYTES:
        raise ValueError(f"an ed25519 key has {_KEY_BYTES} bytes, this one has {len(raw)}")
    return raw


def key_id_from_text(text: str) -> str:
    """Returns the id of a key, as `signing.key_id` does.

    Raises:
        ValueError: as `raw_public_key`.
    """
    return hashlib.sha256(raw_public_key(text)).hexdigest()[:16]
