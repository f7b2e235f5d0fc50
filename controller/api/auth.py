"""Authentication and authorisation: bearer tokens with scopes and an expiry; the store has only their SHA-256.

Every route declares its `scope`, or `public` when it needs no token; a test checks all routes.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Scope as HttpScope

from controller.api.context import FleetDep, StoreDep
from controller.api.errors import ApiError
from controller.api.refusal_audit import RefusalAudit
from controller.domain.audit_kinds import AuditKind
from controller.domain.client_address import counted_as
from controller.domain.principal import Principal
from controller.domain.scopes import Scope
from controller.ports.errors import StoreError
from controller.ports.store import ApiToken

TOKEN_PREFIX: Final = "cordon_"  # noqa: S105 - lets scanners of repositories find one that leaked
TOKEN_BYTES: Final = 32  # random
MAX_TOKEN: Final = 256  # characters
MAX_FAILURES: Final = 20  # failed attempts of a peer within `WINDOW`
WINDOW: Final = 60.0  # seconds
MAX_PEERS: Final = 1024  # peers; the one that failed longest ago is dropped first
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="cordon"'}
_scheme = HTTPBearer(auto_error=False, description="A token made by `cordon init` or `cordon token create`.")


def new_token() -> str:
    """Returns a new token, of which only `digest_of` is stored."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Returns the SHA-256 in hex. A slow hash adds nothing to 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class FailedAttempts:
    """Counts the failed attempts of each peer, an IPv6 /64 as one; `monotonic` returns seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._peers: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def record(self, peer: str) -> float:
        """Counts a failure of `peer`; returns the seconds that it has to wait, 0 below the limit."""
        peer, now = counted_as(peer), self._monotonic()
        began, count = self._peers.pop(peer, (now, 0))
        if now - began >= WINDOW:
            began, count = now, 0
        self._peers[peer] = (began, count + 1)
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)
        return began + WINDOW - now if count + 1 > MAX_FAILURES else 0.0


def match(presented: str, tokens: "list[ApiToken]") -> ApiToken | None:
    """Returns the stored token that matches; compares all of them in constant time."""
    digest = digest_of(presented)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


async def bearer(
    request: Request,
    fleet: FleetDep,
    store: StoreDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
) -> ApiToken:
    """Returns the presented token, if it is stored and has not expired.

    A valid token is accepted even if its address is over the limit of failures: 256 random bits cannot be guessed, so
    the limit only bounds the cost of attempts.

    Raises:
        ApiError: 401 without a valid token, 429 after too many attempts.
    """
    checked = getattr(request.state, "token", None)
    if isinstance(checked, ApiToken):
        return checked
    found = None
    if credentials is not None and len(credentials.credentials) <= MAX_TOKEN:
        found = match(credentials.credentials, list(await store.tokens()))
        if found is not None and not found.is_over(fleet.clock.now()):
            request.state.token = found
            return found
    raise await _refusal(request, found, presented=credentials is not None)


async def presented_scopes(scope: HttpScope) -> frozenset[Scope] | None:
    """Returns the scopes of the valid token of a request, from its headers alone; None without one."""
    request = Request(scope)
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not 0 < len(secret) <= MAX_TOKEN:
        return None
    services = request.app.state.services
    try:
        found = match(secret, list(await services.store.tokens()))
    except StoreError:
        return None  # the route tells it
    if found is None or found.is_over(services.fleet.clock.now()):
        return None
    request.state.token = found
    return frozenset(found.scopes)


async def presented_token(
    request: Request,
    fleet: FleetDep,
    store: StoreDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
) -> ApiToken | None:
    """Returns the token of a public route's caller who presents one; a wrong one is refused as everywhere.

    Raises:
        ApiError: as `bearer`.
    """
    return None if credentials is None else await bearer(request, fleet, store, credentials)


PresentedTokenDep = Annotated[ApiToken | None, Depends(presented_token)]


async def _refusal(request: Request, expired: ApiToken | None, *, presented: bool) -> ApiError:
    failures = request.app.state.failures
    assert isinstance(failures, FailedAttempts)
    peer = request.client.host if request.client else ""
    wait = failures.record(peer)
    refusals = _refusals(request)
    if wait:
        await refusals.record(
            AuditKind.API_TOKEN_GUESSING_DETECTED, peer, f"over {MAX_FAILURES} attempts within a minute", alert=True
        )
        headers = {"Retry-After": str(int(wait) + 1)}
        text = "too many requests without a valid token: wait a minute"
        return ApiError(429, "too_many_attempts", text, headers)
    if expired is not None:
        await refusals.record(AuditKind.API_ACCESS_REFUSED, peer, "expired token", actor=f"operator:{expired.name}")
        text = f"the token {expired.name} has expired: create another with `cordon token create`"
        return ApiError(401, "token_expired", text, _CHALLENGE)
    await refusals.record(AuditKind.API_ACCESS_REFUSED, peer, "unknown token" if presented else "no token")
    if not presented:
        text = "this needs a token: send the header 'Authorization: Bearer cordon_...'"
        return ApiError(401, "token_missing", text, _CHALLENGE)
    return ApiError(401, "token_invalid", "this token is not known here, or was revoked", _CHALLENGE)


def _refusals(request: Request) -> RefusalAudit:
    refusals = request.app.state.refusals
    assert isinstance(refusals, RefusalAudit)
    return refusals


TokenDep = Annotated[ApiToken, Depends(bearer)]


def caller(token: TokenDep) -> str:
    """Returns the actor for audit entries, `operator:<token name>`."""
    return f"operator:{token.name}"


CallerDep = Annotated[str, Depends(caller)]


def principal(token: TokenDep) -> Principal:
    """Returns who calls, for decisions that need two persons."""
    return token.principal


PrincipalDep = Annotated[Principal, Depends(principal)]


class RequiresScope:
    """Checks that a token has a scope."""

    def __init__(self, wanted: Scope) -> None:
        self.scope = wanted

    async def __call__(self, request: Request, token: TokenDep) -> None:
        """Checks the token of the request.

        Raises:
            ApiError: 403, the token lacks the scope.
        """
        if self.scope in token.scopes:
            return
        reason = f"{request.method} {request.scope['route'].path} needs {self.scope.value}"
        peer = request.client.host if request.client else ""
        await _refusals(request).record(AuditKind.API_ACCESS_REFUSED, peer, reason, actor=f"operator:{token.name}")
        held = ", ".join(token.scopes) or "nothing"
        text = f"this needs a token with the scope {self.scope.value}; {token.name} has {held}"
        raise ApiError(403, "scope_missing", text)


class PublicRoute:
    """Marks a route that needs no token, with the reason."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __call__(self) -> None:
        pass


def scope(wanted: str) -> Any:
    """Requires a scope: `dependencies=[scope("contain")]` of a route."""
    needed = Scope(wanted)
    return Security(RequiresScope(needed), scopes=[needed.value])


def public(why: str) -> Any:
    """Marks a route without a token: `dependencies=[public("reason")]`."""
    return Depends(PublicRoute(why))
