"""The cookie of a session, and how a request shows that a page of Cordon sent it."""

import hmac
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

from controller.api.errors import ApiError
from controller.domain.accounts.relying_party import RelyingParty, origin_of, relying_party
from controller.domain.accounts.secret_text import csrf_of
from controller.domain.accounts.session import ABSOLUTE

COOKIE: Final = "__Host-cordon"
BROWSER_COOKIE: Final = "__Host-cordon-browser"
BROWSER_DAYS: Final = 90
CSRF_HEADER: Final = "X-Cordon-CSRF"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_SECRET: Final = 128  # characters


def secret_of(request: HTTPConnection) -> str:
    """The secret in the cookie of a request; empty without one, or with one that no session has."""
    secret = request.cookies.get(COOKIE, "")
    return secret if len(secret) <= MAX_SECRET else ""


def has_cookie(request: HTTPConnection) -> bool:
    return COOKIE in request.cookies


def set_cookie(response: Response, secret: str) -> None:
    """Gives the browser the secret of its session; only this host, over TLS, and no script gets it back."""
    response.set_cookie(COOKIE, secret, max_age=int(ABSOLUTE), path="/", secure=True, httponly=True, samesite="lax")


def browser_mark_of(request: HTTPConnection) -> str:
    """What the browser kept of an earlier sign-in, see `SignIn.browser_mark`; empty without it."""
    mark = request.cookies.get(BROWSER_COOKIE, "")
    return mark if len(mark) <= MAX_SECRET else ""


def set_browser_mark(response: Response, mark: str) -> None:
    """Has the browser keep that an account signed in with it, also after it signed out."""
    seconds = BROWSER_DAYS * 86_400
    response.set_cookie(BROWSER_COOKIE, mark, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")


def clear_cookie(response: Response) -> None:
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def check_same_origin(request: HTTPConnection) -> None:
    """Checks that a page of this origin sent a request, by what the browser says and no page can forge.

    Raises:
        ApiError: 403, another origin did, or the browser does not say.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_same = site == "same-origin" if site is not None else origin is not None
    if origin is not None:
        here = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
        is_same = is_same and origin == here
    if not is_same:
        text = "a session changes something only from a page of this very address"
        raise ApiError(403, "cross_site_request", text)


def check_not_cross_site(request: HTTPConnection) -> None:
    """As `check_same_origin`, but takes requests of programs, which say neither.

    Raises:
        ApiError: 403, a page of another origin sent it.
    """
    if "sec-fetch-site" in request.headers or "origin" in request.headers:
        check_same_origin(request)


def relying_party_of(request: HTTPConnection, configured: str | None) -> RelyingParty | str:
    """Whom passkeys are for at the address of this request, or why it takes none."""
    return relying_party(origin_of(request.scope["scheme"], request.headers.get("host", "")), configured)


def check_csrf(secret: str, presented: str) -> None:
    """Checks the token of a form or of `CSRF_HEADER` against the session's secret.

    Raises:
        ApiError: 403, it is missing or wrong.
    """
    if not hmac.compare_digest(csrf_of(secret).encode(), presented.encode("utf-8", "surrogatepass")):
        raise ApiError(403, "csrf_token_wrong", f"send the token of your session in the header {CSRF_HEADER}")
