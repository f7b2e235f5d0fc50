"""What an ID token must hold before anything in it is believed (OpenID Connect Core, 3.1.3.7)."""

import base64
import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from controller.ports.identity_provider import IdentityNotProvedError

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
LEEWAY: Final = 60  # seconds by which clocks may differ
MAX_AGE: Final = 600  # seconds since the token was made; it comes straight from the provider
MAX_SUBJECT: Final = 255  # characters
_ODD: Final = (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_HASHES: Final = {"RS256": "sha256", "ES256": "sha256", "EdDSA": "sha512"}


class UnknownKeyError(IdentityNotProvedError):
    """The token names a key that is not among the provider's: it may have a new one."""


class _Algorithms(JWSRegistry):
    """The allowed algorithms and no others. joserfc warns of the name EdDSA, which providers still use."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"not one of {', '.join(ALGORITHMS)}")
        return self.algorithms[name]


_REGISTRY: Final = _Algorithms()


@dataclass(frozen=True, slots=True)
class Expected:
    """What the token of one sign-in must say; `authenticated_since`: Unix seconds, None where any time will do."""

    issuer: str
    client_id: str
    nonce: str
    access_token: str = ""
    authenticated_since: float | None = None


def verified_claims(token: str, keys: KeySet, expected: Expected, now: float) -> Mapping[str, Any]:
    """Returns the claims of a token that proves this sign-in. Keys in its header are never looked at.

    Raises:
        UnknownKeyError: signed by a key that is not in `keys`.
        IdentityNotProvedError: anything else is wrong.
    """
    try:
        found = jwt.decode(token, keys, registry=_REGISTRY)
        _check_claims(found.claims, expected, int(now))
        algorithm = found.header["alg"]
    except InvalidKeyIdError as e:
        raise UnknownKeyError("the ID token is signed by a key that the provider does not publish") from e
    except _ODD as e:
        raise IdentityNotProvedError(f"the ID token is not valid: {_why(e)}") from e
    _check_rest(found.claims, expected, algorithm)
    return found.claims


def _check_claims(claims: dict[str, Any], expected: Expected, now: int) -> None:
    JWTClaimsRegistry(
        now=now,
        leeway=LEEWAY,
        iss={"essential": True, "value": expected.issuer},
        aud={"essential": True, "value": expected.client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    ).validate(claims)
    if claims["iat"] < now - LEEWAY - MAX_AGE:
        raise ValueError("iat: made too long ago")


def _check_rest(claims: dict[str, Any], expected: Expected, algorithm: str) -> None:
    nonce, audience = claims.get("nonce"), claims["aud"]
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode("utf-8", "replace"), expected.nonce.encode()):
        raise IdentityNotProvedError("the ID token is not valid: nonce: not the one of this sign-in")
    others = isinstance(audience, list) and set(audience) != {expected.client_id}
    if (others or "azp" in claims) and claims.get("azp") != expected.client_id:
        raise IdentityNotProvedError("the ID token is not valid: azp: made for another client")
    if "at_hash" in claims and claims["at_hash"] != half_hash(expected.access_token, algorithm):
        raise IdentityNotProvedError("the ID token is not valid: at_hash: belongs to another access token")
    if not 0 < len(claims["sub"]) <= MAX_SUBJECT or not claims["sub"].isprintable():
        raise IdentityNotProvedError("the ID token is not valid: sub: empty, too long or not printable")
    since = expected.authenticated_since
    if since is not None and auth_time(claims) < since - LEEWAY:
        raise IdentityNotProvedError("the ID token is not valid: auth_time: the person did not sign in again")


def auth_time(claims: Mapping[str, Any]) -> float:
    """When the person proved themselves to the provider, Unix seconds; 0 where it does not say."""
    value = claims.get("auth_time")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value)


def half_hash(text: str, algorithm: str) -> str:
    """The left half of a hash, as `at_hash` has it."""
    digest = hashlib.new(_HASHES[algorithm], text.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def _why(error: Exception) -> str:
    """A reason without what the token holds."""
    claim = getattr(error, "claim", "") or getattr(error, "claims", "")
    return f"{getattr(error, 'error', '') or error}{f' ({claim})' if claim else ''}"[:100]
