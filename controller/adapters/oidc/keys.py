"""The provider's signing keys, from its own address alone."""

from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OKPKey, RSAKey

from controller.ports.identity_provider import ProviderUnavailableError

MAX_KEYS: Final = 64
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # larger ones take the event loop's time
_MIN_TEXT, _MAX_TEXT = MIN_RSA_BITS // 6, MAX_RSA_BITS // 6 + 4  # characters of a modulus in base64
_ODD: Final = (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError)  # of malformed keys


def key_set(document: dict[str, Any], url: str) -> KeySet:
    """Returns the public signing keys of a JWK set; keys that are not used here are left out.

    A symmetric key is never taken: what is public must not verify an HMAC.

    Raises:
        ProviderUnavailableError: no key is left.
    """
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ProviderUnavailableError(f"{url}: holds no list of at most {MAX_KEYS} keys")
    found = [key for key in map(_signing_key, entries) if key is not None]
    if not found:
        raise ProviderUnavailableError(f"{url}: holds no key of a kind that is accepted here")
    return KeySet(found)


def _signing_key(entry: object) -> Key | None:
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if entry.get("use", "sig") != "sig" or not isinstance(entry.get("kid", ""), str):
        return None
    if entry["kty"] == "RSA" and not _MIN_TEXT <= len(str(entry.get("n", ""))) <= _MAX_TEXT:
        return None
    public = {name: value for name, value in entry.items() if name in _PUBLIC}
    try:
        key = JWKRegistry.import_key(public)
        return key if _is_accepted(key) else None
    except _ODD:
        return None


_PUBLIC: Final = frozenset({"kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"})


def _is_accepted(key: Key) -> bool:
    if isinstance(key, RSAKey):
        return MIN_RSA_BITS <= key.raw_value.key_size <= MAX_RSA_BITS
    if isinstance(key, ECKey):
        return bool(key.curve_name == "P-256")
    return isinstance(key, OKPKey) and key.curve_name == "Ed25519"
