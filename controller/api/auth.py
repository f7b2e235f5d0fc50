"""Authentication and authorisation: bearer tokens, or the session of a person who signed in; never both at once.

Every route declares its `scope`, or `public` when it needs no credential; a test checks all routes.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Scope as HttpScope

from controller.api.context import Services, ServicesDep
from controller.api.errors import ApiError
from controller.api.refusal_audit import RefusalAudit
from controller.api.session_cookie import (
    CSRF_HEADER,
    SAFE_METHODS,
    check_csrf,
    check_same_origin,
    has_cookie,
    secret_of,
)
from controller.domain.accounts.caller import Caller, Credential
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.secret_text import digest_of
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

    def wait(self, peer: str) -> float:
        """Returns the seconds that a peer has to wait after its failures, 0 below the limit."""
        now = self._monotonic()
        began, count = self._peers.get(counted_as(peer), (now, 0))
        return max(0.0, began + WINDOW - now) if count > MAX_FAILURES else 0.0


def match(presented: str, tokens: "list[ApiToken]") -> ApiToken | None:
    """Returns the stored token that matches; compares all of them in constant time."""
    digest = digest_of(presented)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


async def identify(request: Request, services: Services) -> Caller | None:
    """Returns who sends a request, by its token or the cookie of its session; None if it presents neither.

    A session that changes something has to come from a page of this origin; whether it also has the session's token is
    for the route to check (`check_csrf`), which knows where that is. A valid token is accepted even if its address is
    over the limit of failures: 256 random bits cannot be guessed, so the limit only bounds the cost of attempts.

    Raises:
        ApiError: 400 with both, 401 with one that is not valid, 403 from another origin, 429 after too many attempts.
    """
    checked = getattr(request.state, "caller", None)
    if isinstance(checked, Caller):
        return checked
    header = request.headers.get("authorization") or None
    if header is not None and has_cookie(request):
        raise ApiError(400, "two_credentials", "send a token or the cookie of a session, not both")
    if has_cookie(request):
        caller = await services.authentication.of_session(secret_of(request))
        if caller is None:
            raise await _refusal(request, "unknown session")
        if request.method not in SAFE_METHODS:
            check_same_origin(request)
    elif header is not None:
        caller = await _of_header(request, services, header)
    else:
        return None
    request.state.caller = caller
    return caller


async def _of_header(request: Request, services: Services, header: str) -> Caller:
    found = await _stored(services, header)
    if found is None:
        raise await _refusal(request, "unknown token")
    if found.is_over(services.fleet.clock.now()):
        raise await _refusal(request, "expired token", found)
    caller = await services.authentication.of_token(found, peer_of(request))
    if caller is None:
        raise await _refusal(request, "token of a disabled account", found)
    return caller


async def _stored(services: Services, header: str) -> ApiToken | None:
    kind, _, secret = header.partition(" ")
    if kind.lower() != "bearer" or not 0 < len(secret) <= MAX_TOKEN:
        return None
    return match(secret, list(await services.store.tokens()))


async def presented_scopes(scope: HttpScope) -> frozenset[Scope] | None:
    """Returns the scopes of the valid token or session of a request, from its headers alone; None without one."""
    request = Request(scope)
    services: Services = request.app.state.services
    header = request.headers.get("authorization") or None
    if (header is None) is not has_cookie(request):
        return None  # nothing, or both
    try:
        if header is None:
            caller = await services.authentication.of_session(secret_of(request))
        else:
            token = await _stored(services, header)
            if token is None or token.is_over(services.fleet.clock.now()):
                return None
            caller = await services.authentication.of_token(token, peer_of(request))
            request.state.caller = caller
    except StoreError:
        return None  # the route tells it
    request.state.presented = caller  # for those who only need to know who it is
    return None if caller is None else caller.scopes


async def presented_caller(
    request: Request,
    services: ServicesDep,
    _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)],
) -> Caller | None:
    """Returns the caller of a public route, if a credential is presented; a wrong one is refused as everywhere.

    Raises:
        ApiError: as `identify`, and 403 without the session's token where something is changed.
    """
    caller = await identify(request, services)
    if caller is not None and caller.credential is Credential.SESSION and request.method not in SAFE_METHODS:
        check_csrf(secret_of(request), request.headers.get(CSRF_HEADER, ""))
    return caller


PresentedCallerDep = Annotated[Caller | None, Depends(presented_caller)]


async def known(request: Request, caller: PresentedCallerDep) -> Caller:
    """Returns who calls, also in a session that has to give its second factor first.

    Raises:
        ApiError: as `presented_caller`, and 401 without a credential.
    """
    if caller is None:
        raise await _refusal(request, "no token")
    return caller


KnownCallerDep = Annotated[Caller, Depends(known)]


async def authenticated(caller: KnownCallerDep) -> Caller:
    """Returns who calls.

    Raises:
        ApiError: as `known`, and 403 for a session that has to give or register its second factor first.
    """
    if caller.gate is not FactorGate.OPEN:
        raise ApiError(403, caller.gate.value, _GATES[caller.gate])
    return caller


RequestCallerDep = Annotated[Caller, Depends(authenticated)]


def peer_of(request: Request) -> str:
    """The address that a request came from."""
    return request.client.host if request.client else ""


_GATES: Final = {
    FactorGate.GIVE: "give your second factor first, at /login/factor",
    FactorGate.REGISTER: "your account needs a second factor: register one first, at /me",
}
_ANSWERS: Final = {
    "no token": ("token_missing", "this needs a token: send the header 'Authorization: Bearer cordon_...'"),
    "unknown token": ("token_invalid", "this token is not known here, or was revoked"),
    "unknown session": ("session_over", "this session has ended: sign in again"),
    "expired token": ("token_expired", "the token {} has expired: create another with `cordon token create`"),
    "token of a disabled account": ("account_disabled", "the account of the token {} is disabled"),
}


async def _refusal(request: Request, reason: str, token: ApiToken | None = None) -> ApiError:
    failures = request.app.state.failures
    assert isinstance(failures, FailedAttempts)
    peer = peer_of(request)
    wait = failures.record(peer)
    refusals = refusals_of(request)
    if wait:
        await refusals.record(
            AuditKind.API_TOKEN_GUESSING_DETECTED, peer, f"over {MAX_FAILURES} attempts within a minute", alert=True
        )
        headers = {"Retry-After": str(int(wait) + 1)}
        text = "too many requests without a valid token: wait a minute"
        return ApiError(429, "too_many_attempts", text, headers)
    actor = "unknown" if token is None else f"operator:{token.name}"
    await refusals.record(AuditKind.API_ACCESS_REFUSED, peer, reason, actor=actor)
    code, text = _ANSWERS[reason]
    return ApiError(401, code, text.format("" if token is None else token.name), _CHALLENGE)


def refusals_of(request: Request) -> RefusalAudit:
    """Where refused requests are recorded."""
    refusals = request.app.state.refusals
    assert isinstance(refusals, RefusalAudit)
    return refusals


def caller(who: RequestCallerDep) -> str:
    """Returns the actor for audit entries, `operator:<token name>` or `person:<account name>`."""
    return who.actor


CallerDep = Annotated[str, Depends(caller)]


def principal(who: RequestCallerDep) -> Principal:
    """Returns who calls, for decisions that need two persons."""
    return who.principal


PrincipalDep = Annotated[Principal, Depends(principal)]


async def refuse_scope(request: Request, who: Caller, wanted: Iterable[Scope], text: str) -> ApiError:
    """Records that a scope was missing; returns the answer, 403."""
    words = ", ".join(scope.value for scope in wanted)
    reason = f"{request.method} {request.scope['route'].path} needs {words}"
    await refusals_of(request).record(AuditKind.API_ACCESS_REFUSED, peer_of(request), reason, actor=who.actor)
    return ApiError(403, "scope_missing", text)


class RequiresScope:
    """Checks that the caller has a scope; with `session_only` a token does not do, whatever its scopes.

    With `step_up` a session needs a second factor within `STEP_UP`. A token cannot give one: it acts by its scopes.
    """

    def __init__(self, wanted: Scope, *, session_only: bool = False, step_up: bool = False) -> None:
        self.scope = wanted
        self.session_only = session_only
        self.step_up = step_up

    async def __call__(self, request: Request, who: RequestCallerDep) -> None:
        """Checks the caller of the request.

        Raises:
            ApiError: 403, the caller lacks the scope or a fresh factor, or is no session where only a session may act.
        """
        if self.session_only:
            require_session(who)
        if self.scope in who.scopes:
            if self.step_up:
                require_step_up(request, who)
            return
        held = ", ".join(who.shown_scopes) or "nothing"
        what = "token" if who.credential is Credential.TOKEN else "role"
        text = f"this needs a {what} with the scope {self.scope.value}; {who.principal.name} has {held}"
        raise await refuse_scope(request, who, (self.scope,), text)


class RequiresSession:
    """Checks that a person calls who has signed in; which scopes they have does not matter. `step_up`: see above."""

    def __init__(self, *, step_up: bool = False) -> None:
        self.step_up = step_up

    def __call__(self, request: Request, who: RequestCallerDep) -> None:
        require_session(who)
        if self.step_up:
            require_step_up(request, who)


class RequiresLogin:
    """As `RequiresSession`, also before the second factor: for the routes with which it is given."""

    def __call__(self, who: KnownCallerDep) -> None:
        require_session(who)


def require_step_up(request: Request, who: Caller) -> None:
    """Asks a session for a fresh second factor.

    Raises:
        ApiError: 403, it is older than `STEP_UP`, or was never given.
    """
    services: Services = request.app.state.services
    now = services.fleet.clock.now()
    if who.credential is Credential.SESSION and not who.has_fresh_factor(now):
        text = "this needs a second factor within five minutes: give it at /login/factor, or POST /api/v1/factors/give"
        raise ApiError(403, "step_up_needed", text)


def require_session(who: Caller) -> None:
    """Refuses tokens: one that was stolen must not make itself an account, a factor or a session.

    Raises:
        ApiError: 403, the caller has a token.
    """
    if who.credential is not Credential.SESSION:
        raise ApiError(403, "session_only", "no token does this: sign in, or use `cordon account` on the machine")


class PublicRoute:
    """Marks a route that needs no token, with the reason."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __call__(self) -> None:
        pass


def scope(wanted: str, *, session_only: bool = False, step_up: bool = False) -> Any:
    """Requires a scope: `dependencies=[scope("contain")]` of a route; see `RequiresScope`."""
    needed = Scope(wanted)
    return Security(RequiresScope(needed, session_only=session_only, step_up=step_up), scopes=[needed.value])


def session(*, before_factor: bool = False, step_up: bool = False) -> Any:
    """Requires a session, for what people do about themselves: `dependencies=[session()]` of a route."""
    return Depends(RequiresLogin() if before_factor else RequiresSession(step_up=step_up))


def public(why: str) -> Any:
    """Marks a route without a credential: `dependencies=[public("reason")]`."""
    return Depends(PublicRoute(why))
