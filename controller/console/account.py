"""The page of one's own account: second factors, recovery codes, password, sessions, tokens."""

import json
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ValidationError

from controller.api.auth import public
from controller.api.context import Services, ServicesDep, writable
from controller.api.errors import ApiError
from controller.api.fields import to_datetime
from controller.api.me import NewPassword, change_password
from controller.api.session_cookie import set_cookie
from controller.api.tokens import TokenPath, TokensDep
from controller.console.rendering import page, qr_path
from controller.console.routing import (
    HOME,
    PageRedirect,
    PageRoute,
    Person,
    RequiresPerson,
    answer_of,
    party_of,
    posted_by,
    redirect,
    retry,
    sentence,
)
from controller.domain.accounts.caller import STEP_UP, SignedIn
from controller.domain.accounts.factors import FactorGate, Factors
from controller.domain.accounts.second_factor import TOTP_STEP, totp_text, totp_uri
from controller.service.accounts.factor_errors import FactorError
from controller.service.accounts.factors import ISSUER, MAX_FACTOR_NAME, TOTP_ID, NewSession

_SESSION: Final = public("the page asks for a session itself, and sends everybody else to log in")
router = APIRouter(prefix="/me", include_in_schema=False, route_class=PageRoute, dependencies=[_SESSION])
RegisteringDep = Annotated[Person, Depends(RequiresPerson(FactorGate.OPEN, FactorGate.REGISTER))]
PersonDep = Annotated[Person, Depends(RequiresPerson(FactorGate.OPEN))]
_WRITE: Final = [Depends(writable)]
_IdPath = Annotated[str, Path(pattern=r"^[a-z0-9]{1,2046}$")]


@router.get("")
async def my_account(request: Request, services: ServicesDep, person: RegisteringDep) -> Response:
    """Everything of one's own account."""
    return await _account_page(request, services, person)


async def _account_page(
    request: Request, services: Services, person: Person, problem: str = "", status: int = 200
) -> Response:
    accounts, who, now = services.accounts, person.who, services.fleet.clock.now()
    account_id = who.account.account_id
    factors, party = await accounts.second_factors.factors_of(account_id), party_of(request, services)
    sessions = [one for one in await accounts.store.sessions(account_id) if not one.is_over(now)]
    tokens = [one for one in await services.store.tokens() if one.owner == account_id]
    fresh = who.session.factor_at > 0 and 0 <= now - who.session.factor_at < STEP_UP
    return page(
        "me.html",
        status,
        person=person,
        problem=problem,
        must_register=person.gate is FactorGate.REGISTER,
        factors=_factor_rows(factors),
        has_totp=factors.totp is not None,
        has_password=who.account.password != "",
        recovery_left=factors.recovery_codes,
        no_passkey=party if isinstance(party, str) else "",
        fresh_until=to_datetime(who.session.factor_at + STEP_UP) if fresh else None,
        sessions=[
            {
                "session_id": one.session_id,
                "agent": one.agent,
                "address": one.peer,
                "created_at": to_datetime(one.created_at),
                "last_used_at": to_datetime(one.last_used_at),
                "is_this": one.session_id == who.session.session_id,
            }
            for one in sessions
        ],
        tokens=[
            {
                "name": one.name,
                "scopes": one.scopes,
                "expires_at": to_datetime(one.expires_at) if one.expires_at else None,
                "last_used_at": to_datetime(one.last_used_at) if one.last_used_at else None,
            }
            for one in tokens
        ],
    )


def _factor_rows(factors: Factors) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {
            "factor_id": one.credential_id.hex(),
            "name": one.name,
            "kind_text": "passkey",
            "created_at": to_datetime(one.created_at),
            "last_used_at": to_datetime(one.last_used_at) if one.last_used_at else None,
        }
        for one in factors.passkeys
    ]
    if factors.totp is not None:
        at = to_datetime(factors.totp.confirmed_at)
        rows.append(
            {
                "factor_id": TOTP_ID,
                "name": "Authenticator app",
                "kind_text": "one-time codes",
                "created_at": at,
                "last_used_at": to_datetime(factors.totp.last_step * TOTP_STEP),
            }
        )
    return rows


@router.post("/totp", dependencies=_WRITE)
async def begin_totp(request: Request, services: ServicesDep, person: RegisteringDep) -> Response:
    """Shows a new key for an authenticator app."""
    await posted_by(request, person)
    await services.accounts.second_factors.begin_totp(person.who)
    return _totp_page(services, person)


def _totp_page(services: Services, person: Person, problem: str = "", status: int = 200) -> Response:
    secret = services.accounts.second_factors.pending_totp(person.who)
    if secret is None:
        raise PageRedirect(HOME)
    uri = totp_uri(secret, person.name, ISSUER)
    return page("totp.html", status, person=person, problem=problem, qr=qr_path(uri), key=totp_text(secret))


@router.post("/totp/confirm", dependencies=_WRITE)
async def confirm_totp(request: Request, services: ServicesDep, person: RegisteringDep) -> Response:
    """Registers the app, once it has shown a right code."""
    form = await posted_by(request, person)
    try:
        opened = await services.accounts.second_factors.register_totp(person.who, form["code"])
    except FactorError as e:
        return _totp_page(services, person, sentence(str(e)), 422)
    return await _registered(services, person, opened)


@router.get("/passkeys/new")
async def new_passkey(request: Request, services: ServicesDep, person: RegisteringDep) -> Response:
    """The form with which the browser makes a passkey."""
    party = party_of(request, services)
    if isinstance(party, str):
        return await _account_page(request, services, person, sentence(party), 409)
    options = await services.accounts.second_factors.begin_passkey(person.who, party)
    return page("passkey.html", person=person, problem="", party=party, options=json.dumps(options))


@router.post("/passkeys/new", dependencies=_WRITE)
async def add_passkey(request: Request, services: ServicesDep, person: RegisteringDep) -> Response:
    """Registers the passkey that the browser made."""
    form, party = await posted_by(request, person), party_of(request, services)
    if isinstance(party, str):
        return await _account_page(request, services, person, sentence(party), 409)
    name = form["name"].strip()[:MAX_FACTOR_NAME] or "passkey"
    service = services.accounts.second_factors
    return await _registered(services, person, await service.register_passkey(person.who, party, name, answer_of(form)))


async def _registered(services: Services, person: Person, opened: NewSession | None) -> Response:
    """After the first factor the recovery codes, in the session that goes on."""
    if opened is None:
        return redirect(HOME)
    now_in = Person(SignedIn(opened.session, person.who.account), FactorGate.OPEN, opened.secret)
    codes = await services.accounts.second_factors.new_recovery_codes(now_in.who)
    response = page("recovery.html", person=now_in, problem="", codes=codes, return_to=HOME)
    set_cookie(response, opened.secret)
    return response


@router.post("/recovery-codes", dependencies=_WRITE)
async def new_codes(request: Request, services: ServicesDep, person: PersonDep) -> Response:
    """Makes new recovery codes."""
    await posted_by(request, person)
    codes = await services.accounts.second_factors.new_recovery_codes(person.who)
    return page("recovery.html", person=person, problem="", codes=codes, return_to=HOME)


@router.post("/factors/{factor_id}/remove", dependencies=_WRITE)
async def remove_factor(request: Request, services: ServicesDep, person: PersonDep, factor_id: _IdPath) -> Response:
    """Removes a factor."""
    await posted_by(request, person)
    await services.accounts.second_factors.remove(person.who, factor_id)
    return redirect(HOME)


@router.post("/password", dependencies=_WRITE)
async def new_password(request: Request, services: ServicesDep, person: PersonDep) -> Response:
    """Changes the password; all sessions end but a new one."""
    form, accounts = await posted_by(request, person), services.accounts
    if form["password"] != form["again"]:
        return await _account_page(request, services, person, "The two new passwords are not the same.", 422)
    response, caller = redirect(HOME), await accounts.authentication.caller_in(person.who.session, person.who.account)
    try:
        body = NewPassword(current=form["current"], password=form["password"])
        await change_password(request, response, accounts, services.fleet, caller, body)
    except ValidationError:
        text = "Give your password, and a new one of 12 to 256 characters."
        return await _account_page(request, services, person, text, 422)
    except ApiError as e:
        if e.code == "step_up_needed":
            raise
        return retry(e, await _account_page(request, services, person, sentence(e.message), e.status))
    return response


@router.post("/tokens/{name}/revoke", dependencies=_WRITE)
async def revoke_token(request: Request, tokens: TokensDep, person: PersonDep, name: TokenPath) -> Response:
    """Revokes one of one's own tokens."""
    await posted_by(request, person)
    account = person.who.account
    await tokens.revoke(account.in_session.actor, name, account.account_id)
    return redirect(HOME)


@router.post("/sessions/end-others", dependencies=_WRITE)
async def end_other_sessions(request: Request, services: ServicesDep, person: PersonDep) -> Response:
    """Ends all of one's own sessions but the one of this page."""
    await posted_by(request, person)
    who = person.who
    await services.accounts.sign_in.end(who.account, who.account.in_session, but=who.session.session_id)
    return redirect(HOME)


@router.post("/sessions/{session_id}/end", dependencies=_WRITE)
async def end_session(request: Request, services: ServicesDep, person: PersonDep, session_id: _IdPath) -> Response:
    """Ends one of one's own sessions."""
    await posted_by(request, person)
    account = person.who.account
    await services.accounts.sign_in.end(account, account.in_session, session_id=session_id)
    return redirect(HOME)
