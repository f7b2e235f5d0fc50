"""API tokens: create, list, revoke."""

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from controller.api.auth import CallerDep, RequestCallerDep, new_token, scope, session
from controller.api.context import AccountsDep, ApprovalsDep, FleetDep, StoreDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, DurationText, OptionalTimestamp, TokenName, UtcTimestamp, View
from controller.domain.accounts.account import look_of
from controller.domain.accounts.caller import Caller
from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.principal import MakingRecord, is_reserved
from controller.domain.scopes import ALL, Scope, ordered, scopes_exceeding
from controller.ports.store import ApiToken, TokenChange
from controller.service.unit_of_work import UnitOfWork
from schemas.durations import parse_duration

MAX_TOKENS: Final = 100
MAX_OF_OWNER: Final = 20

router = APIRouter(prefix="/tokens", tags=["tokens"], responses=problems(401, 403, 422, 429, 503))
own_router = APIRouter(prefix="/me/tokens", tags=["me"], responses=problems(401, 403, 422, 429, 503))
TokenPath = Annotated[TokenName, Path(description="name of the token")]


class NewApiToken(Body):
    """Scopes and lifetime of a token; without `for` until it is revoked."""

    name: TokenName
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(ALL))] = (Scope.READ,)
    duration: Annotated[DurationText | None, Field(alias="for", description="90s, 10m, 2h, 90d")] = None


class ApiTokenView(View):
    name: str
    created_at: UtcTimestamp
    scopes: tuple[Scope, ...]
    expires_at: OptionalTimestamp
    expired: bool
    made_by: str
    owner: Annotated[str, Field(description="login name of its account; empty: no owner")]
    last_used_at: OptionalTimestamp
    last_peer: str


class ApiTokenList(View):
    items: tuple[ApiTokenView, ...]


class CreatedApiToken(ApiTokenView):
    """`token` is shown only once."""

    token: str


def _view(token: ApiToken, names: Mapping[str, str], now: float) -> dict[str, object]:
    return {
        "expired": token.is_over(now),
        "made_by": _made_by(token),
        "owner": names.get(token.owner, ""),
    }


def audit_of(
    kind: AuditKind, actor: str, token: ApiToken, owner: str, now: float, *, alerts: bool = True
) -> UnitOfWork:
    """The audit line of a token, an alert for a new administrator; `owner`: login name of its account."""
    detail: dict[str, object] = {
        "name": token.name,
        "scopes": list(token.scopes),
        "expires_at": token.expires_at,
        "owner": owner,
    }
    alert = alerts and kind is AuditKind.TOKEN_CREATED and Scope.ADMIN in token.scopes
    return UnitOfWork(audit=[(now, AuditEntry(kind, "", actor, "", detail, alert=alert))])


def _made_by(token: ApiToken) -> str:
    return token.makers[0].name if token.makers else ""


class Tokens:
    """What is done with tokens, by administrators and by their owners."""

    def __init__(self, fleet: FleetDep, store: StoreDep, accounts: AccountsDep, approvals: ApprovalsDep) -> None:
        self._fleet = fleet
        self._store = store
        self._accounts = accounts
        self._approvals = approvals

    async def list(self, owner: str | None = None) -> ApiTokenList:
        """All tokens by name, or those of one account."""
        now, names = self._fleet.clock.now(), await self._names()
        there = sorted(await self._store.tokens(), key=lambda one: one.name)
        wanted = (one for one in there if owner in (None, one.owner))
        return ApiTokenList(items=tuple(ApiTokenView.of(one, **_view(one, names, now)) for one in wanted))

    async def create(self, who: Caller, body: NewApiToken) -> CreatedApiToken:
        """Creates a token of the caller's account.

        Raises:
            ApiError: 403 for more scopes than the caller has, 409 for its name, the number of tokens, or no account.
        """
        if is_reserved(body.name):
            text = f"the audit names somebody on the controller's machine {body.name}: choose another name"
            raise ApiError(409, "token_name_used", text)
        excess = scopes_exceeding(body.scopes, who.scopes)
        if excess:
            text = f"{who.principal.name} lacks the scope {', '.join(excess)}, so it cannot give it to another token"
            raise ApiError(403, "scope_missing", text)
        await self._check_lent(who, body.scopes)
        secret, now, names = new_token(), self._fleet.clock.now(), await self._names()
        _check_no_other(body.name, who, names)
        end = None if body.duration is None else now + parse_duration(body.duration)
        maker = MakingRecord(who.principal.standing, who.principal.name, now)
        token = ApiToken(body.name, digest_of(secret), now, ordered(body.scopes), end, (maker,), who.account_id)
        batch = audit_of(AuditKind.TOKEN_CREATED, who.actor, token, names.get(token.owner, ""), now)
        _check(await self._store.add_token(token, MAX_TOKENS, batch.to_writes(), MAX_OF_OWNER), token)
        self._fleet.publish_committed(batch)
        return CreatedApiToken.of(token, **_view(token, names, now), token=secret)

    async def revoke(self, caller: str, name: str, owner: str | None = None) -> None:
        """Revokes a token, of one account if `owner` is given, and ends its open requests.

        Raises:
            ApiError: 404 if there is none, 409 for the last one with the scope admin and no expiry.
        """
        there = (one for one in await self._store.tokens() if owner in (None, one.owner))
        gone = next((one for one in there if one.name == name), None)
        if gone is None:
            raise ApiError(404, "token_unknown", f"there is no token {name}")
        of = (await self._names()).get(gone.owner, "")
        batch = audit_of(AuditKind.TOKEN_REVOKED, caller, gone, of, self._fleet.clock.now())
        _check(await self._store.revoke_token(gone, batch.to_writes()), gone)
        self._fleet.publish_committed(batch)
        await self._approvals.book.expire()

    async def _check_lent(self, who: Caller, scopes: tuple[Scope, ...]) -> None:
        """Checks that no scope for a while goes to a token, which would have it again with the next grant (403)."""
        owner = await self._accounts.store.account(who.account_id) if who.account_id else None
        excess = (
            () if owner is None else scopes_exceeding(scopes, self._accounts.operations.roles.scopes_of(owner.role))
        )
        if excess:
            text = f"the scope {', '.join(excess)} is yours only for a while, so you cannot give it to a token"
            raise ApiError(403, "scope_missing", text)

    async def _names(self) -> dict[str, str]:
        """Login names of all accounts by id."""
        return {one.account_id: one.name for one in await self._accounts.store.accounts()}


TokensDep = Annotated[Tokens, Depends()]


@router.get("", dependencies=[scope("admin")])
async def list_tokens(tokens: TokensDep) -> ApiTokenList:
    """Lists tokens by name, without their secrets."""
    return await tokens.list()


@router.post(
    "", status_code=201, dependencies=[scope("admin", step_up=True), Depends(writable)], responses=problems(409)
)
async def create_token(tokens: TokensDep, who: RequestCallerDep, body: NewApiToken) -> CreatedApiToken:
    """Creates a token of the caller's account, with scopes that the caller has."""
    return await tokens.create(who, body)


@router.delete(
    "/{name}",
    status_code=204,
    dependencies=[scope("admin", step_up=True), Depends(writable)],
    responses=problems(404, 409),
)
async def revoke_token(tokens: TokensDep, caller: CallerDep, name: TokenPath) -> None:
    """Revokes a token, and ends its open requests; the last one with the scope admin and no expiry stays."""
    await tokens.revoke(caller, name)


@own_router.get("", dependencies=[session()])
async def list_own_tokens(tokens: TokensDep, who: RequestCallerDep) -> ApiTokenList:
    """Lists the tokens of the caller's account, without their secrets."""
    return await tokens.list(who.account_id)


@own_router.post("", status_code=201, dependencies=[session(step_up=True), Depends(writable)], responses=problems(409))
async def create_own_token(tokens: TokensDep, who: RequestCallerDep, body: NewApiToken) -> CreatedApiToken:
    """Creates a token of the caller's account, with scopes that the caller has."""
    return await tokens.create(who, body)


@own_router.delete(
    "/{name}", status_code=204, dependencies=[session(), Depends(writable)], responses=problems(404, 409)
)
async def revoke_own_token(tokens: TokensDep, who: RequestCallerDep, name: TokenPath) -> None:
    """Revokes a token of the caller's account, and ends its open requests."""
    await tokens.revoke(who.actor, name, who.account_id)


def _check_no_other(name: str, who: Caller, names: Mapping[str, str]) -> None:
    """Checks that the audit does not show somebody else where it names this token (409); `names` by account."""
    others = (other for account_id, other in names.items() if account_id != who.account_id)
    if look_of(name) in map(look_of, others):
        text = f"{name} is, or looks like, the login name of somebody else: choose another name"
        raise ApiError(409, "token_name_used", text)


def _check(change: TokenChange, token: ApiToken) -> None:
    """Checks that the change was made.

    Raises:
        ApiError: it was not.
    """
    match change:
        case TokenChange.EXISTS:
            raise ApiError(409, "token_exists", f"there is a token {token.name} already: revoke it first")
        case TokenChange.USED:
            text = f"the audit names an earlier token {token.name}, which was revoked: choose another name"
            raise ApiError(409, "token_name_used", text)
        case TokenChange.TOO_MANY:
            raise ApiError(409, "too_many_tokens", f"there are {MAX_TOKENS} tokens already: revoke one first")
        case TokenChange.TOO_MANY_OF_OWNER:
            text = f"your account has {MAX_OF_OWNER} tokens already: revoke one of them first"
            raise ApiError(409, "too_many_tokens", text)
        case TokenChange.MAKER_GONE:
            raise ApiError(401, "token_invalid", "this token is not known here, or was revoked")
        case TokenChange.NO_OWNER:
            text = "a token needs an owner: make it with a token or in a session of an account (`cordon account`)"
            raise ApiError(409, "owner_needed", text)
        case TokenChange.UNKNOWN:
            raise ApiError(404, "token_unknown", f"there is no token {token.name}")
        case TokenChange.LAST:
            text = f"{token.name} is the last token with the scope admin and no expiry: create another first"
            raise ApiError(409, "last_token", text)
