"""Signing in and out: sessions of people, in the cookie `__Host-cordon`."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field

from controller.api.auth import KnownCallerDep, RequestCallerDep, peer_of, public, refusals_of, session
from controller.api.context import AccountsDep, FleetDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, OptionalTimestamp, UtcTimestamp, View
from controller.api.session_cookie import (
    browser_mark_of,
    check_not_cross_site,
    clear_cookie,
    secret_of,
    set_browser_mark,
    set_cookie,
)
from controller.domain.accounts.account import MAX_NAME, Account
from controller.domain.accounts.caller import Caller
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.passwords import MAX_PASSWORD, WeakPasswordError
from controller.domain.accounts.secret_text import csrf_of, digest_of
from controller.domain.accounts.session import SESSION_DIGITS, Session
from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import Scope
from controller.ports.accounts import TooManyLoginsError
from controller.service.accounts.factor_attempts import GUESSING
from controller.service.accounts.services import AccountServices
from controller.service.accounts.sign_in import PasswordRefusedError, SetupRefusedError

RETRY_SIGN_IN: Final = {"Retry-After": "5"}  # seconds
router = APIRouter(prefix="/sessions", tags=["sessions"], responses=problems(401, 422, 429, 503))
SessionPath = Annotated[str, Path(pattern=rf"^[0-9a-f]{{{SESSION_DIGITS}}}$", description="`session_id`")]
PasswordText = Annotated[str, Field(min_length=1, max_length=MAX_PASSWORD)]


class SignInBody(Body):
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    password: PasswordText


class SessionView(View):
    session_id: str
    created_at: UtcTimestamp
    last_used_at: UtcTimestamp
    ends_at: Annotated[UtcTimestamp, Field(description="if it is not used again")]
    factor: Annotated[str, Field(description="kind of the last second factor; empty: none")]
    factor_at: OptionalTimestamp
    peer: str
    agent: str
    current: Annotated[bool, Field(description="the session of this request")]


class SessionList(View):
    items: tuple[SessionView, ...]


class SignedInView(View):
    """`csrf_token`: for the header `X-Cordon-CSRF` of every request that changes something.

    `gate`: `open`, or what the session has to do about its second factor first; until then it has no scopes.
    """

    account: str
    role: str
    scopes: tuple[Scope, ...]
    gate: FactorGate
    session: SessionView
    csrf_token: str


@router.post(
    "",
    status_code=201,
    dependencies=[public("signing in is how a person gets a credential"), Depends(writable)],
    responses=problems(401),
)
async def sign_in(request: Request, response: Response, accounts: AccountsDep, body: SignInBody) -> SignedInView:
    """Signs in with a password and starts a session; the answer sets its cookie."""
    account = await password_checked(request, accounts, body.name, body.password)
    return await started(request, response, accounts, account)


async def password_checked(request: Request, accounts: AccountServices, name: str, password: str) -> Account:
    """Returns the account with this name and password; what is refused is recorded.

    Raises:
        ApiError: 400 with a token, 401 for a wrong name or password, also where only the provider signs people in,
            403 from a page of another origin, 429 while too many sign in.
    """
    if request.headers.get("authorization"):
        raise ApiError(400, "two_credentials", "a token signs nobody in: send name and password without it")
    check_not_cross_site(request)
    peer, refusals = peer_of(request), refusals_of(request)
    try:
        account = await accounts.sign_in.check(name, password, peer, browser_mark_of(request))
    except TooManyLoginsError as e:
        raise ApiError(429, "too_many_sign_ins", str(e), RETRY_SIGN_IN) from e
    except PasswordRefusedError as e:
        # One line in each case, whether there is such an account or not: the answer takes as long.
        meant, same, is_guessed = await accounts.store.account_named(name), name.casefold(), e.failures >= GUESSING
        known = "unknown" if meant is None else meant.name  # what strangers write is no part of the record
        if meant is not None and is_guessed:
            reason = f"sign-ins as {known} failed {GUESSING} times in a row"
            await refusals.record(AuditKind.ACCOUNT_GUESSING_DETECTED, "", reason, alert=True, same=same)
        else:
            whose = "" if is_guessed else peer
            await refusals.record(AuditKind.ACCOUNT_SIGN_IN_REFUSED, whose, f"sign-in as {known}", same=same)
        raise ApiError(401, "sign_in_refused", str(e)) from e
    return account


async def _check_way(accounts: AccountServices, account: Account) -> None:
    if accounts.sso is not None and not (await accounts.sso.password_rule())(account):
        raise ApiError(403, "sso_enforced", "single sign-on is enforced: this account signs in with the provider")


async def started(
    request: Request,
    response: Response,
    accounts: AccountServices,
    account: Account,
    *,
    factor: str = "",
    factor_at: float = 0.0,
) -> SignedInView:
    """Starts a session of this account and sets its cookie; `factor`: the kind of a second factor that was
    shown, and when (Unix seconds).

    Raises:
        ApiError: 401, the account was disabled meanwhile.
    """
    agent = request.headers.get("user-agent", "")
    try:
        secret, made = await accounts.sign_in.start(
            account, peer_of(request), agent, factor=factor, factor_at=factor_at
        )
    except PasswordRefusedError as e:
        raise ApiError(401, "sign_in_refused", str(e)) from e
    set_cookie(response, secret)
    set_browser_mark(response, accounts.sign_in.browser_mark(account.name))
    return await signed_in_view(accounts, account, made, secret)


async def signed_in_view(accounts: AccountServices, account: Account, made: Session, secret: str) -> SignedInView:
    """What the person who has this session sees of it."""
    caller = await accounts.authentication.caller_in(made, account)
    return SignedInView(
        account=account.name,
        role=account.role,
        scopes=caller.shown_scopes,
        gate=caller.gate,
        session=view_of(made, made.session_id),
        csrf_token=csrf_of(secret),
    )


def view_of(found: Session, current: str) -> SessionView:
    """One session; `current` is the id of the request's own."""
    return SessionView.of(found, current=found.session_id == current, factor_at=found.factor_at)


class SetupBody(Body):
    code: Annotated[str, Field(min_length=1, max_length=128)]
    password: PasswordText


@router.post(
    "/setup",
    status_code=201,
    dependencies=[public("the one-time code is the credential"), Depends(writable)],
    responses=problems(401),
)
async def set_up(request: Request, response: Response, accounts: AccountsDep, body: SetupBody) -> SignedInView:
    """Sets the first password of the account with this one-time code, and starts a session."""
    check_not_cross_site(request)
    try:
        await _check_way(accounts, await accounts.sign_in.with_code(body.code))
        account = await accounts.sign_in.set_up(body.code, body.password)
    except SetupRefusedError as e:
        await refusals_of(request).record(AuditKind.ACCOUNT_SIGN_IN_REFUSED, peer_of(request), "unknown one-time code")
        raise ApiError(401, "setup_code_invalid", str(e)) from e
    except WeakPasswordError as e:
        raise ApiError(422, "password_weak", str(e)) from e
    except TooManyLoginsError as e:
        raise ApiError(429, "too_many_sign_ins", str(e), RETRY_SIGN_IN) from e
    return await started(request, response, accounts, account)


@router.get("", dependencies=[session()])
async def list_sessions(accounts: AccountsDep, fleet: FleetDep, who: RequestCallerDep) -> SessionList:
    """Lists the caller's own sessions, the one used last first."""
    return await sessions_of(accounts, who.account_id, who, fleet.clock.now())


async def sessions_of(accounts: AccountServices, account_id: str, who: Caller, now: float) -> SessionList:
    """The sessions of an account that are not over."""
    found = (one for one in await accounts.store.sessions(account_id) if not one.is_over(now))
    return SessionList(items=tuple(view_of(one, who.session_id) for one in found))


@router.delete("/current", status_code=204, dependencies=[session(before_factor=True), Depends(writable)])
async def sign_out(response: Response, accounts: AccountsDep, who: KnownCallerDep) -> None:
    """Ends the session of this request."""
    await accounts.sign_in.end(await own_account(accounts, who), who.principal, session_id=who.session_id)
    clear_cookie(response)


@router.delete("/{session_id}", status_code=204, dependencies=[session(), Depends(writable)], responses=problems(404))
async def end_session(accounts: AccountsDep, who: RequestCallerDep, session_id: SessionPath) -> None:
    """Ends one of the caller's own sessions."""
    account = await own_account(accounts, who)
    if not await accounts.sign_in.end(account, who.principal, session_id=session_id):
        raise ApiError(404, "session_unknown", "there is no such session of yours")


@router.delete("", status_code=204, dependencies=[session(), Depends(writable)])
async def end_other_sessions(accounts: AccountsDep, who: RequestCallerDep) -> None:
    """Ends all of the caller's sessions but the one of this request."""
    await accounts.sign_in.end(await own_account(accounts, who), who.principal, but=who.session_id)


async def own_account(accounts: AccountServices, who: Caller) -> Account:
    """The account of a caller in a session.

    Raises:
        ApiError: 401, it is gone.
    """
    account = await accounts.store.account(who.account_id)
    if account is None:
        raise ApiError(401, "session_over", "this session has ended: sign in again")
    return account


async def own_session(request: Request, accounts: AccountServices) -> tuple[str, Session, Account]:
    """The secret, session and account of a request that has a session.

    Raises:
        ApiError: 401, it has ended meanwhile.
    """
    secret = secret_of(request)
    found = await accounts.store.session(digest_of(secret))
    if found is None:
        raise ApiError(401, "session_over", "this session has ended: sign in again")
    return secret, *found
