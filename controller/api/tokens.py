"""API tokens: create, list, revoke."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from controller.api.auth import CallerDep, TokenDep, digest_of, new_token, scope
from controller.api.context import FleetDep, StoreDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, DurationText, OptionalTimestamp, TokenName, UtcTimestamp, View
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.scopes import ALL, Scope, ordered, scopes_exceeding
from controller.ports.store import ApiToken
from controller.service.fleet_state import FleetState
from schemas.durations import parse_duration

MAX_TOKENS: Final = 100

router = APIRouter(prefix="/tokens", tags=["tokens"], responses=problems(401, 403, 422, 429, 503))
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


class ApiTokenList(View):
    items: tuple[ApiTokenView, ...]


class CreatedApiToken(ApiTokenView):
    """`token` is shown only once."""

    token: str


def _audit_detail(token: ApiToken) -> dict[str, object]:
    return {"name": token.name, "scopes": list(token.scopes), "expires_at": token.expires_at}


async def _record(fleet: FleetState, kind: AuditKind, actor: str, detail: dict[str, object]) -> None:
    await fleet.record(AuditEntry(kind, "", actor, "", detail))


@router.get("", dependencies=[scope("admin")])
async def list_tokens(fleet: FleetDep, store: StoreDep) -> ApiTokenList:
    """Lists tokens by name, without their secrets."""
    now = fleet.clock.now()
    tokens = sorted(await store.tokens(), key=lambda one: one.name)
    return ApiTokenList(items=tuple(ApiTokenView.of(one, expired=one.is_over(now)) for one in tokens))


@router.post("", status_code=201, dependencies=[scope("admin"), Depends(writable)], responses=problems(409))
async def create_token(
    fleet: FleetDep, store: StoreDep, caller: CallerDep, held: TokenDep, body: NewApiToken
) -> CreatedApiToken:
    """Creates a token, with scopes that the caller's token has."""
    excess = scopes_exceeding(body.scopes, held.scopes)
    if excess:
        text = f"{held.name} lacks the scope {', '.join(excess)}, so it cannot give it to another token"
        raise ApiError(403, "scope_missing", text)
    tokens = await store.tokens()
    if any(one.name == body.name for one in tokens):
        raise ApiError(409, "token_exists", f"there is a token {body.name} already: revoke it first")
    if len(tokens) >= MAX_TOKENS:
        raise ApiError(409, "too_many_tokens", f"there are {MAX_TOKENS} tokens already: revoke one first")
    secret, now = new_token(), fleet.clock.now()
    end = None if body.duration is None else now + parse_duration(body.duration)
    token = ApiToken(body.name, digest_of(secret), now, ordered(body.scopes), end)
    await store.put_token(token)
    await _record(fleet, AuditKind.TOKEN_CREATED, caller, _audit_detail(token))
    return CreatedApiToken.of(token, expired=token.is_over(now), token=secret)


@router.delete(
    "/{name}", status_code=204, dependencies=[scope("admin"), Depends(writable)], responses=problems(404, 409)
)
async def revoke_token(fleet: FleetDep, store: StoreDep, caller: CallerDep, name: TokenPath) -> None:
    """Revokes a token, except the last one with the scope admin and no expiry."""
    tokens = {one.name: one for one in await store.tokens()}
    gone = tokens.get(name)
    if gone is None:
        raise ApiError(404, "token_unknown", f"there is no token {name}")
    others = (one for one in tokens.values() if one is not gone and one.expires_at is None)
    if Scope.ADMIN in gone.scopes and not any(Scope.ADMIN in one.scopes for one in others):
        text = f"{name} is the last token with the scope admin and no expiry: create another first"
        raise ApiError(409, "last_token", text)
    await store.drop_token(name)
    await _record(fleet, AuditKind.TOKEN_REVOKED, caller, _audit_detail(gone))
