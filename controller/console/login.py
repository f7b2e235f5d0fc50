"""Logging in and out: password, second factor, one-time code."""

import json
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError

from controller.api.auth import public
from controller.api.context import Services, ServicesDep, writable
from controller.api.errors import ApiError
from controller.api.session_cookie import clear_cookie
from controller.api.sessions import SetupBody, SignInBody, set_up, sign_in
from controller.console.rendering import page, static_file
from controller.console.routing import (
    HOME,
    LOGIN,
    FormDep,
    PageRoute,
    Person,
    RequiresPerson,
    answer_of,
    go_on,
    local_path,
    next_step,
    party_of,
    posted_by,
    redirect,
    retry,
    sentence,
    signed_in,
)
from controller.console.sso import login_link, step_up_link
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.relying_party import RelyingParty
from controller.service.accounts.factor_errors import FactorSlowedError, FactorWrongError
from controller.service.accounts.factors import GivenFactor

MAX_CODE: Final = 128  # characters of a one-time code
_OPEN: Final = public("the pages with which people log in")
router = APIRouter(include_in_schema=False, route_class=PageRoute, dependencies=[_OPEN])
AnybodyDep = Annotated[Person, Depends(RequiresPerson(*FactorGate))]
GivingDep = Annotated[Person, Depends(RequiresPerson(FactorGate.GIVE, FactorGate.OPEN))]


@router.get("/login")
async def login_page(request: Request, services: ServicesDep, return_to: str = HOME) -> Response:
    """The form for name and password; whoever has a session goes on."""
    person = await signed_in(request, services)
    if person is not None:
        return redirect(next_step(person.gate, local_path(return_to)))
    return await _login_form(services, local_path(return_to))


async def _login_form(
    services: Services, return_to: str, name: str = "", problem: str = "", status: int = 200
) -> Response:
    sso = await login_link(services, return_to)
    return page("login.html", status, person=None, return_to=return_to, name=name, problem=problem, sso=sso)


@router.post("/login", dependencies=[Depends(writable)])
async def log_in(request: Request, services: ServicesDep, form: FormDep) -> Response:
    """Begins a session by password; it can do nothing before its second factor, where the account has one."""
    return_to = local_path(form["return_to"])
    response = redirect(return_to)
    try:
        await sign_in(request, response, services.accounts, SignInBody(name=form["name"], password=form["password"]))
    except ValidationError:
        return await _login_form(services, return_to, form["name"], "Give your name and your password.", 422)
    except ApiError as e:
        return retry(e, await _login_form(services, return_to, form["name"], sentence(e.message), e.status))
    return response


@router.get("/login/factor")
async def factor_page(request: Request, services: ServicesDep, person: GivingDep, return_to: str = HOME) -> Response:
    """The form for a second factor, after the password or for what needs a fresh one."""
    account, path = person.who.account, local_path(return_to)
    factors = await services.accounts.second_factors.factors_of(account.account_id)
    if not factors.exist and step_up_link(services, account, path) is None:
        return redirect(HOME)  # where one is registered
    return await _factor_form(request, services, person, path)


async def _factor_form(
    request: Request, services: Services, person: Person, return_to: str, problem: str = "", status: int = 200
) -> Response:
    party, service = party_of(request, services), services.accounts.second_factors
    factors = await service.factors_of(person.who.account.account_id)
    options = await service.begin_use(person.who, party) if isinstance(party, RelyingParty) else None
    return page(
        "factor.html",
        status,
        person=person,
        return_to=return_to,
        problem=problem,
        is_login=person.gate is FactorGate.GIVE,
        passkey=None if options is None else json.dumps(options),
        no_passkey=sentence(party) if factors.passkeys and isinstance(party, str) else "",
        has_totp=factors.totp is not None,
        sso=step_up_link(services, person.who.account, return_to),
    )


@router.post("/login/factor", dependencies=[Depends(writable)])
async def give_factor(request: Request, services: ServicesDep, person: GivingDep) -> Response:
    """Takes a second factor; the session goes on under another secret."""
    form = await posted_by(request, person)
    return_to, party = local_path(form["return_to"]), party_of(request, services)
    given = GivenFactor(form["code"], form["recovery"], answer_of(form) if "answer" in form.fields else None)
    taken_here = party if isinstance(party, RelyingParty) else None
    try:
        opened = await services.accounts.second_factors.give(person.who, given, taken_here)
    except (FactorWrongError, FactorSlowedError) as e:
        status = 429 if isinstance(e, FactorSlowedError) else 401
        return await _factor_form(request, services, person, return_to, sentence(str(e)), status)
    return go_on(return_to, opened)


@router.post("/logout", dependencies=[Depends(writable)])
async def log_out(request: Request, services: ServicesDep, person: AnybodyDep) -> Response:
    """Ends the session."""
    await posted_by(request, person)
    who = person.who
    await services.accounts.sign_in.end(who.account, who.account.in_session, session_id=who.session.session_id)
    response = redirect(LOGIN)
    clear_cookie(response)
    return response


@router.get("/setup")
async def setup_page(code: str = "") -> Response:
    """The form for the first password; the code is looked at when it is sent."""
    return _setup_form(code)


def _setup_form(code: str, problem: str = "", status: int = 200) -> Response:
    return page("setup.html", status, person=None, code=code[:MAX_CODE], problem=problem)


@router.post("/setup", dependencies=[Depends(writable)])
async def set_first_password(request: Request, services: ServicesDep, form: FormDep) -> Response:
    """Sets the first password by a one-time code, and begins a session in which a second factor is registered."""
    if form["password"] != form["again"]:
        return _setup_form(form["code"], "The two passwords are not the same.", 422)
    response = redirect(HOME)
    try:
        await set_up(request, response, services.accounts, SetupBody(code=form["code"], password=form["password"]))
    except ValidationError:
        return _setup_form(form["code"], "Give the code, and a password of 12 to 256 characters.", 422)
    except ApiError as e:
        return retry(e, _setup_form(form["code"], sentence(e.message), e.status))
    return response


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """A style sheet or script."""
    found = static_file(name)
    if found is None:
        raise ApiError(404, "not_found", "there is no such file")
    return found
