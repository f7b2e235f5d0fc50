"""Logging in by way of the OpenID provider, and giving a second factor there."""

from typing import Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from controller.api.auth import FailedAttempts, peer_of, public
from controller.api.context import Services, ServicesDep
from controller.api.errors import ApiError
from controller.api.refusal_audit import RefusalAudit
from controller.api.session_cookie import set_cookie
from controller.console.rendering import HEADERS, page
from controller.console.routing import HOME, MAX_FIELDS, PageRedirect, PageRoute, local_path, redirect, signed_in
from controller.domain.accounts.account import Account
from controller.domain.accounts.sso import ATTEMPT_SECONDS
from controller.domain.audit_kinds import AuditKind
from controller.ports.identity_provider import (
    IdentityNotProvedError,
    IdentityProviderError,
    ProviderBusyError,
    SignInDeclinedError,
)
from controller.service.accounts.sso import SignInRefusedError, SingleSignOn

COOKIE: Final = "__Host-cordon-sso"
MAX_QUERY: Final = 8192  # characters of a provider's answer
_OPEN: Final = public("the provider, and the cookie of this browser, prove who comes")
_AWAY: Final = (
    "The provider cannot be used at the moment. Accounts for emergencies log in by password; whoever administers Cordon"
    " finds the reason in its log."
)
_BUSY: Final = "Too many people sign in at this moment. Try again."
_DECLINED: Final = "The provider ended the sign-in. Begin again."
_NOT_PROVED: Final = (
    "What came back does not prove who you are. Begin again; if it happens twice, tell an administrator."
)
_STATUS: Final = {"sign_in_unknown": 400, "sign_in_over": 400, "too_many_sign_ins": 503}
router = APIRouter(prefix="/login/sso", include_in_schema=False, route_class=PageRoute, dependencies=[_OPEN])


async def login_link(services: Services, return_to: str) -> dict[str, object] | None:
    """What the page for logging in needs to offer single sign-on; None where it is not configured."""
    sso = services.accounts.sso
    if sso is None:
        return None
    enforced = await sso.why_not_enforced() == ""
    return {"url": f"/login/sso?{urlencode({'return_to': return_to})}", "name": sso.name, "enforced": enforced}


def step_up_link(services: Services, account: Account, return_to: str) -> dict[str, object] | None:
    """What a page needs to offer a second factor at the provider; None where that does not count."""
    sso = services.accounts.sso
    if sso is None or not sso.vouches_for(account):
        return None
    return {"url": f"/login/sso?{urlencode({'return_to': return_to, 'step_up': '1'})}", "name": sso.name}


def _configured(services: Services) -> SingleSignOn:
    if services.accounts.sso is None:
        raise ApiError(404, "not_found", "single sign-on is not configured here")
    return services.accounts.sso


@router.get("")
async def begin(request: Request, services: ServicesDep, return_to: str = HOME, step_up: bool = False) -> Response:
    """Sends the browser to the provider; with `step_up` for a second factor in the session that it has."""
    sso = _configured(services)
    person = await signed_in(request, services) if step_up else None
    if step_up and person is None:
        raise PageRedirect("/login")
    try:
        url, cookie = await sso.begin(local_path(return_to), None if person is None else person.who.session)
    except IdentityProviderError as e:
        return _refused(*_reason(e)[1:])
    response = RedirectResponse(url, 303, HEADERS)
    response.set_cookie(COOKIE, cookie, int(ATTEMPT_SECONDS), secure=True, httponly=True, samesite="lax")
    return response


@router.get("/callback")
async def come_back(request: Request, services: ServicesDep) -> Response:
    """Takes what the provider sent back through the browser; whatever it is, it counts once."""
    response = await _finish(request, services, _configured(services))
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
    return response


async def _finish(request: Request, services: Services, sso: SingleSignOn) -> Response:
    failures, refusals, peer = request.app.state.sign_in_failures, request.app.state.refusals, peer_of(request)
    assert isinstance(failures, FailedAttempts)
    assert isinstance(refusals, RefusalAudit)
    if wait := failures.wait(peer):
        return _refused(429, "Too many sign-ins failed: wait a minute.", {"Retry-After": str(int(wait) + 1)})
    person = await signed_in(request, services)
    browser = peer, request.headers.get("user-agent", "")
    try:
        opened, return_to = await sso.finish(
            _answer(request), request.cookies.get(COOKIE, ""), browser, None if person is None else person.who
        )
    except (SignInRefusedError, IdentityProviderError) as e:
        code, status, text = _reason(e)
        if isinstance(e, SignInDeclinedError | IdentityNotProvedError):
            failures.record(peer)  # each has cost the provider a request
        if not isinstance(e, SignInDeclinedError):
            alert = isinstance(e, IdentityNotProvedError) or (isinstance(e, SignInRefusedError) and e.alert)
            await refusals.record(AuditKind.SSO_REFUSED, peer, code, alert=alert)
        return _refused(status, text)
    response = redirect(local_path(return_to))
    set_cookie(response, opened.secret)
    return response


def _answer(request: Request) -> dict[str, str]:
    """The query of a callback, each name once.

    Raises:
        SignInRefusedError: it is none that a provider sends.
    """
    text = request.scope["query_string"].decode("latin-1")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS) if len(text) <= MAX_QUERY else []
    except ValueError:
        pairs = []
    if not pairs or len(dict(pairs)) != len(pairs):
        raise SignInRefusedError("sign_in_unknown", "this is no answer of a provider: begin again")
    return dict(pairs)


def _reason(error: SignInRefusedError | IdentityProviderError) -> tuple[str, int, str]:
    """The code, status and sentence of a failure. What the provider wrote is in none of them."""
    if isinstance(error, SignInRefusedError):
        text = str(error)
        return error.code, _STATUS.get(error.code, 403), f"{text[:1].upper()}{text[1:]}."
    if isinstance(error, SignInDeclinedError):
        return "sign_in_declined", 403, _DECLINED
    if isinstance(error, IdentityNotProvedError):
        return "identity_not_proved", 403, _NOT_PROVED
    return "provider_unavailable", 503, _BUSY if isinstance(error, ProviderBusyError) else _AWAY


def _refused(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    response = page("error.html", status, heading="You are not signed in", problem=text, person=None)
    response.headers.update(headers or {})
    return response
