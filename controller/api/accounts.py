"""Accounts: for administrators who have signed in. No token does this, whatever its scopes."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from controller.api.auth import RequestCallerDep, scope
from controller.api.context import AccountsDep, ContainmentDep, FleetDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, OptionalTimestamp, UtcTimestamp, View
from controller.api.me import FactorsView, factors_view
from controller.api.sessions import SessionList, SessionPath, sessions_of
from controller.domain.accounts.account import MAX_NAME, Account, AccountRefusal
from controller.domain.accounts.caller import Caller
from controller.domain.accounts.secret_text import digest_of
from controller.domain.scopes import Scope, ordered
from controller.ports.accounts import AccountOverview
from controller.service.accounts.operations import (
    AccountError,
    Administrator,
    TooManyGenerationsError,
    UnknownRoleError,
    new_code,
)
from controller.service.accounts.services import AccountServices

router = APIRouter(prefix="/accounts", tags=["accounts"], responses=problems(401, 422, 429, 503))
_admin = scope("admin", session_only=True)
_changing = [scope("admin", session_only=True, step_up=True), Depends(writable)]
NamePath = Annotated[str, Path(min_length=1, max_length=MAX_NAME, description="login name")]
RoleName = Annotated[str, Field(min_length=1, max_length=32)]


class NewAccount(Body):
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    role: RoleName


class RoleBody(Body):
    role: RoleName


class AccountView(View):
    account_id: str
    name: str
    role: str
    enabled: bool
    created_at: UtcTimestamp
    last_login_at: OptionalTimestamp
    has_password: bool
    issuer: Annotated[str, Field(description="of the identity at an OpenID provider; empty without one")]
    made_by: str
    setup_until: Annotated[OptionalTimestamp, Field(description="end of its one-time code; null without one")]
    factors: FactorsView
    sessions: int
    tokens: int


class AccountList(View):
    items: tuple[AccountView, ...]
    roles: tuple[str, ...]


class SetupCodeView(View):
    """`setup_code` is shown only once; `/setup?code=` takes it."""

    name: str
    setup_code: str
    setup_until: UtcTimestamp


class FactorsResetView(View):
    """`setup_code`: as in `SetupCodeView`; null for an account that is disabled, or that only the provider signs in."""

    name: str
    setup_code: str | None
    setup_until: OptionalTimestamp


def _view(found: AccountOverview) -> AccountView:
    account = found.account
    return AccountView.of(
        account,
        has_password=bool(account.password),
        made_by=account.makers[0].name if account.makers else "",
        factors=factors_view(found.factors),
        sessions=found.sessions,
        tokens=found.tokens,
    )


@router.get("", dependencies=[_admin])
async def list_accounts(accounts: AccountsDep) -> AccountList:
    """Lists accounts by name, and the roles that there are."""
    found = await accounts.store.overviews()
    return AccountList(items=tuple(map(_view, found)), roles=accounts.operations.roles.names)


@router.post("", status_code=201, dependencies=_changing, responses=problems(409))
async def create_account(
    fleet: FleetDep, accounts: AccountsDep, who: RequestCallerDep, body: NewAccount
) -> SetupCodeView:
    """Creates an account with a one-time code, with which its owner sets password and second factor."""
    await _check_role(accounts, who, body.role)
    now = fleet.clock.now()
    account = Account(fleet.new_id(), body.name, body.role, now)
    with _told():
        account = await accounts.operations.create(account, Administrator(who.principal))
    return await _code(accounts, account, who, now)


@router.get("/{name}", dependencies=[_admin], responses=problems(404))
async def show_account(accounts: AccountsDep, name: NamePath) -> AccountView:
    """Returns one account."""
    account = await _named(accounts, name)
    return next(_view(one) for one in await accounts.store.overviews() if one.account.account_id == account.account_id)


@router.put("/{name}/role", dependencies=_changing, responses=problems(404, 409))
async def set_role(
    fleet: FleetDep, accounts: AccountsDep, who: RequestCallerDep, name: NamePath, body: RoleBody
) -> AccountView:
    """Gives an account another role, which counts at once; the last one that administers keeps its own."""
    await _check_role(accounts, who, body.role)
    account = await _named(accounts, name)
    with _told():
        await accounts.operations.set_role(account, body.role, Administrator(who.principal), fleet.clock.now())
    return await show_account(accounts, name)


@router.post("/{name}/enable", dependencies=_changing, responses=problems(404, 409))
async def enable(fleet: FleetDep, accounts: AccountsDep, who: RequestCallerDep, name: NamePath) -> AccountView:
    """Enables an account; tokens and sessions that it had stay over."""
    return await _enabled(fleet.clock.now(), accounts, who, name, enabled=True)


@router.post("/{name}/disable", dependencies=_changing, responses=problems(404, 409))
async def disable(
    containment: ContainmentDep, accounts: AccountsDep, who: RequestCallerDep, name: NamePath
) -> AccountView:
    """Disables an account, and ends its tokens, sessions and open requests."""
    return await _enabled(containment.fleet.clock.now(), accounts, who, name, enabled=False)


async def _enabled(now: float, accounts: AccountServices, who: Caller, name: str, *, enabled: bool) -> AccountView:
    account = await _named(accounts, name)
    with _told():
        await accounts.operations.set_enabled(account, Administrator(who.principal), now, enabled=enabled)
    return await show_account(accounts, name)


@router.post("/{name}/setup-code", status_code=201, dependencies=_changing, responses=problems(404, 409))
async def new_setup_code(
    fleet: FleetDep, accounts: AccountsDep, who: RequestCallerDep, name: NamePath
) -> SetupCodeView:
    """Makes a one-time code for an account whose owner lost the password; an earlier one does not count any more."""
    account = await _named(accounts, name)
    await _check_takeover(accounts, who, account)
    return await _code(accounts, account, who, fleet.clock.now())


async def _code(accounts: AccountServices, account: Account, who: Caller, now: float) -> SetupCodeView:
    code = new_code()
    with _told():
        after = await accounts.operations.give_setup_code(account, digest_of(code), Administrator(who.principal), now)
    return SetupCodeView.of(after, setup_code=code)


@router.delete("/{name}/factors", dependencies=_changing, responses=problems(404))
async def reset_factors(
    fleet: FleetDep, accounts: AccountsDep, who: RequestCallerDep, name: NamePath
) -> FactorsResetView:
    """Removes all second factors and the password of an account whose owner lost them, and ends its sessions."""
    account, code = await _named(accounts, name), new_code()
    await _check_takeover(accounts, who, account)
    by, now = Administrator(who.principal), fleet.clock.now()
    with _told():
        after = await accounts.operations.reset_factors(account, digest_of(code), by, now)
    return FactorsResetView.of(after, setup_code=code if after.setup_digest else None)


@router.get("/{name}/sessions", dependencies=[_admin], responses=problems(404))
async def account_sessions(
    fleet: FleetDep, accounts: AccountsDep, who: RequestCallerDep, name: NamePath
) -> SessionList:
    """Lists the sessions of an account."""
    account = await _named(accounts, name)
    return await sessions_of(accounts, account.account_id, who, fleet.clock.now())


@router.delete("/{name}/sessions", status_code=204, dependencies=_changing, responses=problems(404))
async def end_sessions(accounts: AccountsDep, who: RequestCallerDep, name: NamePath) -> None:
    """Ends all sessions of an account."""
    await accounts.sign_in.end(await _named(accounts, name), who.principal)


@router.delete("/{name}/sessions/{session_id}", status_code=204, dependencies=_changing, responses=problems(404))
async def end_session(accounts: AccountsDep, who: RequestCallerDep, name: NamePath, session_id: SessionPath) -> None:
    """Ends one session of an account."""
    if not await accounts.sign_in.end(await _named(accounts, name), who.principal, session_id=session_id):
        raise ApiError(404, "session_unknown", f"there is no such session of {name}")


async def _named(accounts: AccountServices, name: str) -> Account:
    account = await accounts.store.account_named(name)
    if account is None:
        raise ApiError(404, "account_unknown", f"there is no account {name}")
    return account


async def _for_good(accounts: AccountServices, who: Caller) -> frozenset[Scope]:
    """What a caller may do by role: scopes for a while are not passed on."""
    account = await accounts.store.account(who.account_id)
    return frozenset() if account is None else who.scopes & accounts.operations.roles.scopes_of(account.role)


async def _check_role(accounts: AccountServices, who: Caller, role: str) -> None:
    excess = accounts.operations.roles.exceeding(role, await _for_good(accounts, who))
    if excess:
        raise ApiError(403, "scope_missing", f"you lack the scope {', '.join(excess)}, so you cannot give it away")


async def _check_takeover(accounts: AccountServices, who: Caller, account: Account) -> None:
    """Checks that whoever could sign in as this account by it gets no scope that they lack (403)."""
    held = accounts.operations.roles.scopes_of(account.role) | await accounts.authentication.scopes_of(account)
    excess = ordered(held - await _for_good(accounts, who))
    if excess:
        text = f"{account.name} has the scope {', '.join(excess)}, which you lack: somebody who has it does this"
        raise ApiError(403, "scope_missing", text)


_STATUS: Final = {AccountRefusal.UNKNOWN: 404, AccountRefusal.NAME_INVALID: 422}


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns what an operation refuses into an answer."""
    try:
        yield
    except AccountError as e:
        status = _STATUS.get(e.refusal, 409)
        raise ApiError(status, f"account_{e.refusal.value.replace(' ', '_')}", str(e)) from e
    except UnknownRoleError as e:
        raise ApiError(422, "role_unknown", str(e)) from e
    except TooManyGenerationsError as e:
        raise ApiError(409, "too_many_generations", str(e)) from e
