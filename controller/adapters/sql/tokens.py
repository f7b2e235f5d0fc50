"""API tokens: what is checked about all of them is checked in the transaction that changes one."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Final

from pydantic import TypeAdapter

from controller.adapters.sql import codec
from controller.adapters.sql.connection import SqlConnection
from controller.domain.accounts.roles import ADMIN_ROLE
from controller.domain.principal import MakingRecord, account_key
from controller.domain.scopes import Scope, ordered
from controller.ports.store import ApiToken, TokenChange

_COLUMNS: Final = "name, digest, created_at, scopes, expires_at, makers, owner, last_used_at, last_peer"
_PUT: Final = (
    f"INSERT INTO tokens ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"  # noqa: S608 - constants
    " digest = excluded.digest, created_at = excluded.created_at, scopes = excluded.scopes,"
    " expires_at = excluded.expires_at, makers = excluded.makers, owner = excluded.owner,"
    " last_used_at = excluded.last_used_at, last_peer = excluded.last_peer"
)
# The audit names a token by its name: whoever got one of an earlier token would act in the name of its holder.
_REVOKED: Final = "SELECT 1 FROM audit WHERE kind = 'token.revoked' AND {} = ? LIMIT 1"
_SCOPES: Final = frozenset(Scope)
_MAKERS: Final = TypeAdapter(tuple[tuple[str, str, float], ...])

_SIGNS_IN: Final = "SELECT 1 FROM accounts WHERE role = ? AND enabled = 1 AND (password <> '' OR subject <> '')"


def every(connection: SqlConnection) -> list[ApiToken]:
    """Returns all tokens by name."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM tokens ORDER BY name")  # noqa: S608 - constants
    return [_token(row) for row in rows]


def put(connection: SqlConnection, token: ApiToken) -> None:
    """Adds a token, or replaces the token of the same name."""
    makers = codec.dump([astuple(maker) for maker in token.makers])
    made = (token.name, token.digest, token.created_at, " ".join(token.scopes), token.expires_at, makers)
    connection.execute(_PUT, (*made, token.owner, token.last_used_at, token.last_peer))


def add(connection: SqlConnection, token: ApiToken, bounds: tuple[int, int], detail_name: str) -> TokenChange:
    """Adds a token, if owner and maker are still there, its name was never used, and there are fewer than `bounds`.

    `bounds`: of all tokens, and of those of one owner: nobody takes all places.
    `detail_name`: the engine's expression for the field `name` of `audit.detail`.
    """
    there = every(connection)
    owner = connection.execute("SELECT enabled FROM accounts WHERE account_id = ?", (token.owner,)).fetchone()
    if owner is None or not owner[0]:
        return TokenChange.NO_OWNER
    makers = {one.credential for one in there} | {account_key(token.owner)}
    if token.makers and token.makers[0].key not in makers:
        return TokenChange.MAKER_GONE
    if any(one.name == token.name for one in there):
        return TokenChange.EXISTS
    if connection.execute(_REVOKED.format(detail_name), (token.name,)).fetchone() is not None:
        return TokenChange.USED
    most, most_of_owner = bounds
    if sum(one.owner == token.owner for one in there) >= most_of_owner:
        return TokenChange.TOO_MANY_OF_OWNER
    if len(there) >= most:
        return TokenChange.TOO_MANY
    put(connection, token)
    return TokenChange.DONE


def revoke(connection: SqlConnection, token: ApiToken) -> TokenChange:
    """Deletes this token, and no other that got its name meanwhile."""
    there = every(connection)
    if all(one.digest != token.digest for one in there):
        return TokenChange.UNKNOWN
    if is_last_administrator(token, there) and connection.execute(_SIGNS_IN, (ADMIN_ROLE,)).fetchone() is None:
        return TokenChange.LAST
    connection.execute("DELETE FROM tokens WHERE digest = ?", (token.digest,))
    return TokenChange.DONE


def is_last_administrator(token: ApiToken, there: Sequence[ApiToken]) -> bool:
    """Whether without the token nobody could make tokens for ever."""
    others = (one for one in there if one.digest != token.digest and one.expires_at is None)
    return Scope.ADMIN in token.scopes and not any(Scope.ADMIN in one.scopes for one in others)


def _token(row: tuple[Any, ...]) -> ApiToken:
    name, digest, created_at, scopes, expires_at, makers, owner, last_used_at, last_peer = row
    # An unknown scope, of a newer version, is ignored.
    held = ordered(Scope(word) for word in scopes.split() if word in _SCOPES)
    found = codec.read(f"the token {name}", lambda: _MAKERS.validate_json(makers))
    made = tuple(MakingRecord(*one) for one in found)
    return ApiToken(name, digest, created_at, held, expires_at, made, owner, last_used_at, last_peer)
