"""Logging in and out: password, second factor, one-time code."""

import json
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from controller.api.auth import public
from controller.api.context import Services, ServicesDep
from controller.api.errors import ApiError
from controller.api.session_cookie import clear_cookie
from controller.console.rendering import page, static_file
from controller.console.routing import (
    HOME,
    PageRoute,
    Person,
    RequiresPerson,
    answer_of,
    end_session,
    go_on,
    local_path,
    party_of,
    posted_by,
    redirect,
)
from controller.console.sso import step_up_link
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.relying_party import RelyingParty
from controller.service.accounts.factors import FactorSlowedError, FactorWrongError, GivenFactor

_WRONG: Final = "Name or password is not right."
_OPEN: Final = public("the pages with which people log in")
router = APIRouter(include_in_schema=False, route_class=PageRoute, dependencies=[_OPEN])
AnybodyDep = Annotated[Person, Depends(RequiresPerson(*FactorGate))]
GivingDep = Annotated[Person, Depends(RequiresPerson(FactorGate.GIVE, FactorGate.OPEN))]


@router.get("/login/factor")
async def factor_page(request: Request, services: ServicesDep, person: GivingDep, return_to: str = HOME) -> Response:
    """The form for a second factor, after the password or for what needs a fresh one."""
    return await _factor_form(request, services, person, local_path(return_to))


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
        no_passkey=_sentence(party) if factors.passkeys and isinstance(party, str) else "",
        has_totp=factors.totp is not None,
        sso=step_up_link(services, person.who.account, return_to),
    )


@router.post("/login/factor")
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
        return await _factor_form(request, services, person, return_to, _sentence(str(e)), status)
    return go_on(return_to, opened)


@router.post("/logout")
async def log_out(request: Request, services: ServicesDep, person: AnybodyDep) -> Response:
    """Ends the session."""
    await posted_by(request, person)
    await end_session(services, person, person.who.session.session_id)
    response = redirect("/login")
    clear_cookie(response)
    return response


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """A style sheet or script."""
    found = static_file(name)
    if found is None:
        raise ApiError(404, "not_found", "there is no such file")
    return found


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}."
