"""What all pages share: who is signed in, forms, where to go on, and errors as pages."""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from controller.api.context import Services, ServicesDep
from controller.api.errors import ApiError, detail_for
from controller.api.session_cookie import (
    check_csrf,
    check_same_origin,
    clear_cookie,
    relying_party_of,
    secret_of,
    set_cookie,
)
from controller.console.rendering import HEADERS, page
from controller.domain.accounts.caller import SignedIn
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.relying_party import RelyingParty
from controller.domain.accounts.secret_text import csrf_of
from controller.ports.errors import ControllerError
from controller.service.accounts.factor_errors import FactorError
from controller.service.accounts.factors import NewSession

MAX_FIELDS: Final = 16  # of a form
MAX_PATH: Final = 500  # characters of a path to go on to
MAX_ANSWER: Final = 16_384  # characters of a passkey's answer
HOME: Final = "/me"
LOGIN: Final = "/login"
STEP_UP_PAGE: Final = f"/login/factor?return_to={HOME}"
_FORM: Final = "application/x-www-form-urlencoded"


class PageRedirect(Exception):  # noqa: N818 - no error
    """Ends a request with a redirect; `clear`: the session has ended, and its cookie goes too."""

    def __init__(self, path: str, *, clear: bool = False) -> None:
        super().__init__(path)
        self.path = path
        self.clear = clear


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def with_pages(request: Request) -> Response:
            try:
                return await handler(request)
            except PageRedirect as to:
                response = redirect(to.path)
                if to.clear:
                    clear_cookie(response)
                return response
            except ApiError as e:
                is_stale = e.code == "step_up_needed"
                return redirect(STEP_UP_PAGE) if is_stale else _problem(e.status, e.message, e.headers)
            except (HTTPException, RequestValidationError) as e:
                status = e.status_code if isinstance(e, HTTPException) else 404
                return _problem(status, str(e.detail) if isinstance(e, HTTPException) else "there is no such page")
            except FactorError as e:
                return redirect(STEP_UP_PAGE) if e.code == "step_up_needed" else _problem(409, str(e))
            except ControllerError as e:
                return _problem(503, detail_for(request, str(e)))

        return with_pages


def _problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    response = page("error.html", status, heading="This does not work", problem=text, person=None)
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def redirect(path: str) -> RedirectResponse:
    """Returns an answer that makes the browser get another page of Cordon."""
    return RedirectResponse(path, 303, HEADERS)


def local_path(text: str) -> str:
    """Returns a path of this host to go on to; `HOME` in place of everything else: no link leads people elsewhere."""
    try:
        parts = urlsplit(text) if len(text) <= MAX_PATH and text.isascii() and text.isprintable() else None
    except ValueError:
        return HOME
    is_path = parts is not None and not parts.scheme and not parts.netloc and parts.path.startswith("/")
    return text if is_path and not text.startswith("//") and "\\" not in text else HOME


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, each once."""

    fields: dict[str, str]

    def __getitem__(self, name: str) -> str:
        """The text of a field, empty if it is not there."""
        return self.fields.get(name, "")


async def form_of(request: Request) -> Form:
    """The form of a request that a page of this origin sent.

    Raises:
        ApiError: 400 no such form, 403 another origin sent it.
    """
    check_same_origin(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    fields = _fields(body) if kind == _FORM else None
    if fields is None:
        raise ApiError(400, "bad_request", "this is not a form of Cordon's pages")
    return Form(fields)


def _fields(body: bytes) -> dict[str, str] | None:
    """The fields of a form; None if it is none, has a text with NUL, which the store may refuse, or has a field twice.

    Of a field that is there twice programs take the first or the last.
    """
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except ValueError:
        return None
    is_storable = not any("\x00" in text for pair in pairs for text in pair)
    return dict(pairs) if is_storable and len({name for name, _ in pairs}) == len(pairs) else None


FormDep = Annotated[Form, Depends(form_of)]


@dataclass(frozen=True, slots=True)
class Person:
    """Who looks at a page."""

    who: SignedIn
    gate: FactorGate
    secret: str

    @property
    def name(self) -> str:
        return self.who.account.name

    @property
    def csrf(self) -> str:
        """Proves that a form comes from a page of this session."""
        return csrf_of(self.secret)


async def signed_in(request: Request, services: Services) -> Person | None:
    """Who looks at a page; None without a session, or with one that is over."""
    secret = secret_of(request)
    if not secret or request.headers.get("authorization") is not None:
        return None
    who = await services.authentication.signed_in(secret)
    return None if who is None else Person(who, await services.authentication.gate(who), secret)


class RequiresPerson:
    """The session of a page; everybody else is sent to log in, and to the second factor, first."""

    def __init__(self, *gates: FactorGate) -> None:
        self._gates = gates

    async def __call__(self, request: Request, services: ServicesDep) -> Person:
        """Returns who looks at the page, if what they have to do about their factor permits it.

        Raises:
            PageRedirect: they have to do something else first.
        """
        path = local_path(request.scope["path"]) if request.method == "GET" else HOME
        person = await signed_in(request, services)
        if person is None:
            raise PageRedirect(f"/login?return_to={quote(path)}", clear=bool(secret_of(request)))
        if person.gate not in self._gates:
            raise PageRedirect(next_step(person.gate, path))
        return person


def next_step(gate: FactorGate, path: str) -> str:
    """Where a session goes on that wants to get to `path`."""
    if gate is FactorGate.GIVE:
        return f"/login/factor?return_to={quote(path)}"
    return HOME if gate is FactorGate.REGISTER else path


async def posted_by(request: Request, person: Person) -> Form:
    """The form that this person sent from a page of their session.

    Raises:
        ApiError: as `form_of`, and 403 without the token of the session.
    """
    form = await form_of(request)
    check_csrf(person.secret, form["csrf"])
    return form


def answer_of(form: Form) -> dict[str, Any]:
    """The answer of a passkey in a form.

    Raises:
        ApiError: 400, there is none.
    """
    try:
        found = json.loads(form["answer"]) if len(form["answer"]) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ApiError(400, "bad_request", "passkeys need JavaScript in the browser")
    return found


def party_of(request: Request, services: Services) -> RelyingParty | str:
    """Whom passkeys are for on the page of a request, or why it takes none."""
    return relying_party_of(request, services.settings.accounts.url)


def go_on(path: str, session: NewSession | None) -> Response:
    """Redirects to `path`, and gives the browser its new session, if there is one."""
    response = redirect(path)
    if session is not None:
        set_cookie(response, session.secret)
    return response


def retry(error: ApiError, response: Response) -> Response:
    """Returns a form that is shown again, with what the refusal says to programs."""
    response.headers.update(error.headers)
    return response


def sentence(reason: str) -> str:
    """Returns a reason of the API as a sentence of a page."""
    return f"{reason[:1].upper()}{reason[1:]}."
