"""What people see and change of themselves."""

from fastapi import APIRouter, Depends, Request, Response

from controller.api.auth import RequestCallerDep, require_step_up, session
from controller.api.context import AccountsDep, FleetDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, OptionalTimestamp, View
from controller.api.sessions import (
    RETRY_SIGN_IN,
    PasswordText,
    SignedInView,
    own_session,
    password_checked,
    signed_in_view,
    started,
)
from controller.domain.accounts.factors import Factors
from controller.domain.accounts.passwords import WeakPasswordError
from controller.ports.accounts import TooManyLoginsError
from controller.service.accounts.operations import AccountError, Administrator
from controller.service.accounts.services import AccountServices

router = APIRouter(prefix="/me", tags=["me"], responses=problems(401, 422, 429, 503))


class FactorsView(View):
    passkeys: int
    totp: bool
    recovery_codes: int


class MeView(SignedInView):
    last_login_at: OptionalTimestamp
    factors: FactorsView


class NewPassword(Body):
    current: PasswordText
    password: PasswordText


def factors_view(found: Factors) -> FactorsView:
    """How many factors of each kind there are."""
    has_totp = found.totp is not None and found.totp.confirmed_at > 0.0
    return FactorsView(passkeys=len(found.passkeys), totp=has_totp, recovery_codes=found.recovery_codes)


@router.get("", dependencies=[session(before_factor=True)])
async def show_me(request: Request, accounts: AccountsDep) -> MeView:
    """Returns the caller's account and session."""
    secret, current, account = await own_session(request, accounts)
    shown = await signed_in_view(accounts, account, current, secret)
    factors = factors_view(await accounts.factors.factors(account.account_id))
    return MeView.of(shown, last_login_at=account.last_login_at, factors=factors)


@router.put("/password", dependencies=[session(), Depends(writable)], responses=problems(409))
async def change_password(
    request: Request,
    response: Response,
    accounts: AccountsDep,
    fleet: FleetDep,
    who: RequestCallerDep,
    body: NewPassword,
) -> SignedInView:
    """Changes the caller's password, with a fresh second factor if there is one; all sessions end but a new one."""
    _, current, account = await own_session(request, accounts)
    if (await accounts.second_factors.factors_of(account.account_id)).exist:
        require_step_up(request, who)
    shown = await password_checked(request, accounts, account.name, body.current)
    phc = await hashed(accounts, body.password, account.name)
    me, now = Administrator(who.principal), fleet.clock.now()
    try:
        after = await accounts.operations.set_password(account, phc, me, now, after=shown.password_at)
    except AccountError as e:
        raise ApiError(409, "account_changed", str(e)) from e
    return await started(request, response, accounts, after, factor=current.factor, factor_at=current.factor_at)


async def hashed(accounts: AccountServices, password: str, name: str) -> str:
    """Returns the hash of a new password of this account.

    Raises:
        ApiError: 422, it cannot be one; 429 while too many are hashed.
    """
    try:
        return await accounts.sign_in.new_hash(password, name)
    except WeakPasswordError as e:
        raise ApiError(422, "password_weak", str(e)) from e
    except TooManyLoginsError as e:
        raise ApiError(429, "too_many_sign_ins", str(e), RETRY_SIGN_IN) from e
