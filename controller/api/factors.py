"""One's own second factors: register, list, remove, give. No token does any of this."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field, JsonValue

from controller.api.auth import session
from controller.api.context import AccountsDep, ServicesDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, OptionalTimestamp, UtcTimestamp, View
from controller.api.session_cookie import relying_party_of, secret_of, set_cookie
from controller.domain.accounts.caller import SignedIn
from controller.domain.accounts.factors import FactorKind
from controller.domain.accounts.relying_party import RelyingParty
from controller.domain.accounts.second_factor import TOTP_STEP, totp_text, totp_uri
from controller.domain.accounts.secret_text import csrf_of
from controller.service.accounts.factor_errors import FactorError, FactorSlowedError
from controller.service.accounts.factors import ISSUER, MAX_FACTOR_NAME, TOTP_ID, GivenFactor, NewSession

router = APIRouter(prefix="/factors", tags=["factors"], responses=problems(401, 403, 409, 422, 429, 503))
_CHANGE: Final = [session(before_factor=True), Depends(writable)]  # the service looks at the factor itself
_STATUSES: Final = {
    "step_up_needed": 403,
    "login_needed": 403,
    "factor_unknown": 404,
    "session_over": 401,
    "factor_wrong": 403,
}
_Answer = Annotated[dict[str, JsonValue], Field(max_length=16, description="the passkey's `toJSON()`")]
_FactorId = Annotated[str, Path(pattern=r"^[a-z0-9]{1,2046}$", description="`factor_id` of the list")]


class FactorView(View):
    factor_id: str
    kind: FactorKind
    name: str
    registered_at: UtcTimestamp
    last_used_at: OptionalTimestamp


class FactorList(View):
    """`recovery_codes`: how many are left."""

    items: tuple[FactorView, ...]
    recovery_codes: int


class TotpSecretView(View):
    """`secret` in base32, and as the address that apps read from a QR code."""

    secret: str
    uri: str


class PasskeyOptions(View):
    """For `PublicKeyCredential.parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON`."""

    options: dict[str, JsonValue]


class RecoveryCodes(View):
    """Shown only once; earlier ones do not work any more."""

    codes: tuple[str, ...]


class SessionGoesOn(View):
    """`csrf`: for the header `X-Cordon-CSRF`; another one than before if the session got another secret."""

    csrf: str


class TotpCode(Body):
    code: Annotated[str, Field(max_length=20)]


class NewPasskey(Body):
    name: Annotated[str, Field(min_length=1, max_length=MAX_FACTOR_NAME)]
    passkey: _Answer


class FactorPresented(Body):
    """One of the three."""

    code: Annotated[str, Field(max_length=20)] = ""
    recovery: Annotated[str, Field(max_length=40)] = ""
    passkey: _Answer | None = None


async def _signed_in(request: Request, accounts: AccountsDep) -> SignedIn:
    who = await accounts.authentication.signed_in(secret_of(request))
    if who is None:
        raise ApiError(401, "session_over", "this session has ended: log in again")
    return who


async def _party(request: Request, services: ServicesDep) -> RelyingParty:
    party = relying_party_of(request, services.settings.accounts.url)
    if isinstance(party, str):
        raise ApiError(409, "no_passkeys_here", party)
    return party


SignedInDep = Annotated[SignedIn, Depends(_signed_in)]
PartyDep = Annotated[RelyingParty, Depends(_party)]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except FactorSlowedError as e:
        raise ApiError(429, e.code, str(e), {"Retry-After": str(int(e.wait) + 1)}) from e
    except FactorError as e:
        raise ApiError(_STATUSES.get(e.code, 409), e.code, str(e)) from e


def _going_on(request: Request, response: Response, opened: NewSession | None) -> SessionGoesOn:
    if opened is None:
        return SessionGoesOn(csrf=csrf_of(secret_of(request)))
    set_cookie(response, opened.secret)
    return SessionGoesOn(csrf=csrf_of(opened.secret))


@router.get("", dependencies=[session()])
async def list_factors(accounts: AccountsDep, who: SignedInDep) -> FactorList:
    """Lists the caller's own factors."""
    factors = await accounts.second_factors.factors_of(who.account.account_id)
    items = [
        FactorView.of(one, factor_id=one.credential_id.hex(), kind=FactorKind.PASSKEY, registered_at=one.created_at)
        for one in factors.passkeys
    ]
    if factors.totp is not None:
        used = factors.totp.last_step * TOTP_STEP
        more: dict[str, Any] = {"registered_at": factors.totp.confirmed_at, "last_used_at": used}
        items.append(FactorView(factor_id=TOTP_ID, kind=FactorKind.TOTP, name="authenticator app", **more))
    return FactorList(items=tuple(items), recovery_codes=factors.recovery_codes)


@router.post("/totp", status_code=201, dependencies=_CHANGE)
async def begin_totp(accounts: AccountsDep, who: SignedInDep) -> TotpSecretView:
    """Makes a secret for an authenticator app, which counts once a code of it was sent."""
    with _refusals():
        secret = await accounts.second_factors.begin_totp(who)
    return TotpSecretView(secret=totp_text(secret), uri=totp_uri(secret, who.account.name, ISSUER))


@router.post("/totp/confirm", dependencies=_CHANGE)
async def register_totp(
    request: Request, response: Response, accounts: AccountsDep, who: SignedInDep, body: TotpCode
) -> SessionGoesOn:
    """Registers the app, in place of an earlier one."""
    with _refusals():
        return _going_on(request, response, await accounts.second_factors.register_totp(who, body.code))


@router.post("/passkeys/options", dependencies=_CHANGE)
async def begin_passkey(accounts: AccountsDep, who: SignedInDep, party: PartyDep) -> PasskeyOptions:
    """Asks for a new passkey; the challenge is taken once, in this session."""
    with _refusals():
        return PasskeyOptions(options=await accounts.second_factors.begin_passkey(who, party))


@router.post("/passkeys", status_code=201, dependencies=_CHANGE)
async def register_passkey(
    request: Request, response: Response, accounts: AccountsDep, who: SignedInDep, party: PartyDep, body: NewPasskey
) -> SessionGoesOn:
    """Registers the passkey that the browser made."""
    with _refusals():
        opened = await accounts.second_factors.register_passkey(who, party, body.name, body.passkey)
    return _going_on(request, response, opened)


@router.post("/recovery-codes", status_code=201, dependencies=[session(), Depends(writable)])
async def new_recovery_codes(accounts: AccountsDep, who: SignedInDep) -> RecoveryCodes:
    """Makes ten recovery codes, each for one use in place of a factor."""
    with _refusals():
        return RecoveryCodes(codes=await accounts.second_factors.new_recovery_codes(who))


@router.post("/give/options", dependencies=[session(before_factor=True)])
async def begin_giving(accounts: AccountsDep, who: SignedInDep, party: PartyDep) -> PasskeyOptions:
    """Asks for the use of one of the caller's passkeys."""
    options = await accounts.second_factors.begin_use(who, party)
    if options is None:
        raise ApiError(409, "factor_missing", "your account has no passkey")
    return PasskeyOptions(options=options)


@router.post("/give", dependencies=_CHANGE)
async def give_factor(
    request: Request, response: Response, services: ServicesDep, who: SignedInDep, body: FactorPresented
) -> SessionGoesOn:
    """Gives a second factor: after the password, or a fresh one for what needs it."""
    party = relying_party_of(request, services.settings.accounts.url)
    given = GivenFactor(body.code, body.recovery, body.passkey)
    with _refusals():
        opened = await services.accounts.second_factors.give(
            who, given, party if isinstance(party, RelyingParty) else None
        )
    return _going_on(request, response, opened)


@router.delete("/{factor_id}", status_code=204, dependencies=[session(), Depends(writable)], responses=problems(404))
async def remove_factor(accounts: AccountsDep, who: SignedInDep, factor_id: _FactorId) -> None:
    """Removes a factor; not the last one, where everybody needs one."""
    with _refusals():
        await accounts.second_factors.remove(who, factor_id)
