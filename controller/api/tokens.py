"""API tokens: made here, shown once, withdrawn at once."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path

from controller.api.context import ServicesDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, Moment, TokenName, View, at
from controller.api.guard import CallerDep, digest_of, new_token
from controller.domain.effects import AuditEntry
from controller.ports.store import Token, Writes

MAX_TOKENS: Final = 100

router = APIRouter(prefix="/tokens", tags=["tokens"], responses=problems(401, 422, 429, 503))
TokenPath = Annotated[TokenName, Path(description="name of the token")]


class NewToken(Body):
    name: TokenName


class TokenView(View):
    name: str
    created_at: Moment


class TokenList(View):
    items: tuple[TokenView, ...]


class CreatedToken(TokenView):
    """`token` is shown here and never again."""

    token: str


@router.get("")
async def list_tokens(services: ServicesDep, _caller: CallerDep) -> TokenList:
    """All tokens by name; never what they are."""
    tokens = sorted(await services.store.tokens(), key=lambda one: one.name)
    return TokenList(items=tuple(TokenView(name=one.name, created_at=at(one.created_at)) for one in tokens))


@router.post("", status_code=201, dependencies=[Depends(writable)], responses=problems(409))
async def create_token(services: ServicesDep, caller: CallerDep, body: NewToken) -> CreatedToken:
    """Make a token for somebody."""
    tokens = await services.store.tokens()
    if any(one.name == body.name for one in tokens):
        raise ApiError(409, "token_exists", f"there is a token {body.name} already: revoke it first")
    if len(tokens) >= MAX_TOKENS:
        raise ApiError(409, "too_many_tokens", f"there are {MAX_TOKENS} tokens already: revoke one first")
    secret, now = new_token(), services.keeper.clock.now()
    await services.store.put_token(Token(body.name, digest_of(secret), now))
    await services.store.commit(
        Writes(audit=((now, AuditEntry("token created", "", caller, "", {"name": body.name})),))
    )
    return CreatedToken(name=body.name, created_at=at(now), token=secret)


@router.delete("/{name}", status_code=204, dependencies=[Depends(writable)], responses=problems(404, 409))
async def revoke_token(services: ServicesDep, caller: CallerDep, name: TokenPath) -> None:
    """Withdraw a token: it opens nothing from now on. The last one stays, or nobody could get in."""
    names = {one.name for one in await services.store.tokens()}
    if name not in names:
        raise ApiError(404, "token_unknown", f"there is no token {name}")
    if len(names) == 1:
        raise ApiError(409, "last_token", f"{name} is the last token: create another first")
    await services.store.drop_token(name)
    now = services.keeper.clock.now()
    await services.store.commit(Writes(audit=((now, AuditEntry("token revoked", "", caller, "", {"name": name})),)))
