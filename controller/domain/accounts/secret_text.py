"""Secrets that are presented as text: of each the store has only its digest."""

import hashlib
from typing import Final

_CSRF: Final = "cordon csrf "  # keeps the two digests of a session's secret apart


def digest_of(secret: str) -> str:
    """Returns the SHA-256 in hex. A slow hash adds nothing to 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def csrf_of(secret: str) -> str:
    """Returns the token that proves that a request comes from a page of this session; from the secret of its cookie."""
    return digest_of(_CSRF + secret)
