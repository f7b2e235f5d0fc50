"""`controller.ports.identity_provider` by OpenID Connect: discovery, code flow with PKCE, ID token."""

import asyncio
import base64
import math
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlencode

from joserfc.jwk import KeySet

from controller.adapters.oidc.exchange import ProviderExchange, endpoint_problem
from controller.adapters.oidc.id_token import Expected, UnknownKeyError, auth_time, verified_claims
from controller.adapters.oidc.keys import key_set
from controller.adapters.oidc.metadata import ProviderMetadata, checked_metadata, metadata_url
from controller.domain.accounts.sso import MAX_GROUPS, ProvedIdentity, SignInAttempt
from controller.ports.clock import Clock
from controller.ports.errors import SettingsError
from controller.ports.identity_provider import (
    IdentityNotProvedError,
    IdentityProvider,
    ProviderUnavailableError,
    SignInDeclinedError,
)

CALLBACK: Final = "/login/sso/callback"
METADATA_SECONDS: Final = 3600.0  # how long discovery is used
KEYS_SECONDS: Final = 600.0  # how long keys are used: one that the provider withdrew is refused after it
ROTATION_SECONDS: Final = 30.0  # between two looks for the key of a token that is unknown
REST_SECONDS: Final = 5.0  # after a failure, in which nothing is asked
MAX_CODE: Final = 4096  # characters
MAX_TEXT: Final = 256  # characters of a name, a group, acr and amr
_CODE: Final = re.compile(r"[a-z_]{1,40}")  # of an error that the provider names
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OidcOptions:
    """How the controller is registered at the provider.

    `acr_values` are asked for. `max_age`: seconds since somebody proved themselves, after which they do it again; asked
    for it, a provider has to say when that was. 0 asks for neither.
    """

    issuer: str
    client_id: str
    client_secret: str
    redirect_uri: str
    scopes: tuple[str, ...] = ("openid", "profile")
    groups_claim: str = "groups"
    acr_values: tuple[str, ...] = ()
    max_age: int = 0


class OidcProvider(IdentityProvider):
    """Keeps the provider's metadata and keys for a while, and nothing of sign-ins."""

    def __init__(self, options: OidcOptions, tls: ssl.SSLContext, clock: Clock) -> None:
        """Asks nothing yet.

        Raises:
            SettingsError: the issuer is no address that may be used.
        """
        if problem := endpoint_problem(options.issuer, options.issuer):
            raise SettingsError(f"accounts.sso.issuer: {problem}")
        self._options = options
        self._clock = clock
        self._exchange = ProviderExchange(tls)
        self._lock = asyncio.Lock()
        self._metadata: tuple[float, ProviderMetadata] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._failure: tuple[float, str] = (-math.inf, "")

    async def authorization_url(self, attempt: SignInAttempt) -> str:
        options, metadata = self._options, await self._known_metadata()
        query = {
            "response_type": "code",
            "client_id": options.client_id,
            "redirect_uri": options.redirect_uri,
            "scope": " ".join(options.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        if options.acr_values:
            query["acr_values"] = " ".join(options.acr_values)
        if attempt.session:
            query.update(prompt="login", max_age="0")
        elif options.max_age:
            query["max_age"] = str(options.max_age)
        endpoint = metadata.authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def identity(self, answer: Mapping[str, str], attempt: SignInAttempt) -> ProvedIdentity:
        metadata = await self._known_metadata()
        self._check_issuer(answer, metadata)
        if "error" in answer:
            raise SignInDeclinedError(f"the provider ended the sign-in: {_error_code(answer['error'])}")
        code = answer.get("code", "")
        if not 0 < len(code) <= MAX_CODE:
            raise IdentityNotProvedError("the answer holds no code")
        tokens = await self._redeem(code, attempt, metadata)
        return self._identity_in(await self._claims(tokens, attempt, metadata))

    def _check_issuer(self, answer: Mapping[str, str], metadata: ProviderMetadata) -> None:
        """RFC 9207: the answer of another provider, which somebody sent here, is not taken for this one's."""
        if "iss" not in answer and not metadata.authorization_response_iss_parameter_supported:
            return
        if answer.get("iss") != metadata.issuer:
            raise IdentityNotProvedError("the answer is of another issuer, or of none")

    async def _redeem(self, code: str, attempt: SignInAttempt, metadata: ProviderMetadata) -> dict[str, Any]:
        options, url = self._options, metadata.token_endpoint
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": options.redirect_uri,
            "code_verifier": attempt.verifier,
        }
        headers = {}
        methods = metadata.token_endpoint_auth_methods_supported
        if "client_secret_basic" in methods:
            # RFC 6749, 2.3.1: both are form-encoded first.
            pair = f"{quote_plus(options.client_id)}:{quote_plus(options.client_secret)}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif "client_secret_post" in methods:
            form |= {"client_id": options.client_id, "client_secret": options.client_secret}
        else:
            raise ProviderUnavailableError(f"{url}: takes no client secret, neither by header nor by form")
        status, found = await self._exchange.post(url, form, headers)
        if "error" in found or status != 200:
            text = f"{url}: answered {status} {_error_code(found.get('error'))}"
            if found.get("error") == "invalid_grant":
                raise SignInDeclinedError(text)
            raise ProviderUnavailableError(text)
        return found

    async def _claims(
        self, tokens: dict[str, Any], attempt: SignInAttempt, metadata: ProviderMetadata
    ) -> Mapping[str, Any]:
        token, access = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(token, str):
            raise IdentityNotProvedError("the provider sent no ID token")
        since = attempt.began_at if attempt.session else None
        expected = Expected(
            metadata.issuer,
            self._options.client_id,
            attempt.nonce,
            access if isinstance(access, str) else "",
            since,
        )
        now = self._clock.now()
        keys = await self._known_keys(metadata, KEYS_SECONDS)
        try:
            return verified_claims(token, keys, expected, now)
        except UnknownKeyError:
            fresh = await self._known_keys(metadata, ROTATION_SECONDS)
            if fresh is keys:
                raise
            return verified_claims(token, fresh, expected, now)

    async def _known_metadata(self) -> ProviderMetadata:
        async with self._lock:
            now = self._clock.monotonic()
            if self._metadata is None or now - self._metadata[0] >= METADATA_SECONDS:
                issuer = self._options.issuer
                found = await self._fetched(metadata_url(issuer), lambda raw: checked_metadata(raw, issuer))
                self._metadata = (now, found)
            return self._metadata[1]

    async def _known_keys(self, metadata: ProviderMetadata, not_older_than: float) -> KeySet:
        async with self._lock:
            now, url = self._clock.monotonic(), metadata.jwks_uri
            if self._keys is None or now - self._keys[0] >= not_older_than:
                self._keys = (now, await self._fetched(url, lambda raw: key_set(raw, url)))
            return self._keys[1]

    async def _fetched(self, url: str, read: Callable[[dict[str, Any]], T]) -> T:
        """Fetches, and rests after a failure: who waits for the lock does not ask one after the other."""
        failed_at, why = self._failure
        if self._clock.monotonic() - failed_at < REST_SECONDS:
            raise ProviderUnavailableError(why)
        try:
            return read(await self._exchange.fetch(url))
        except ProviderUnavailableError as e:
            self._failure = (self._clock.monotonic(), str(e))
            raise

    def _identity_in(self, claims: Mapping[str, Any]) -> ProvedIdentity:
        return ProvedIdentity(
            self._options.issuer,
            claims["sub"],
            _text(claims.get("preferred_username")),
            _texts(claims.get(self._options.groups_claim)),
            _text(claims.get("acr")),
            _texts(claims.get("amr")) or (),
            auth_time(claims),
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else ""


def _texts(value: object) -> tuple[str, ...] | None:
    """A list of texts; a provider may send one as itself. None for anything else."""
    if isinstance(value, str):
        return (value,) if len(value) <= MAX_TEXT else ()
    if not isinstance(value, list):
        return None
    return tuple(one for one in value[:MAX_GROUPS] if isinstance(one, str) and len(one) <= MAX_TEXT)


def _error_code(value: object) -> str:
    """An error code as OAuth has them; nothing else that a provider, or a link, holds gets into logs."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else "with an unknown error"
