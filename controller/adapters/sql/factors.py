"""Second factors of accounts: passkeys, TOTP secrets, recovery codes."""

from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import partial
from typing import Final

from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.domain.accounts.factors import MAX_PASSKEYS, Factors, Passkey, Totp
from controller.ports.accounts import FactorStore
from controller.ports.store import StoreWrites

_PASSKEY: Final = "account_id, credential_id, public_key, sign_count, name, created_at, last_used_at"
_PUT_TOTP: Final = (
    "INSERT INTO totp (account_id, secret, confirmed_at, last_step) VALUES (?, ?, ?, ?) ON CONFLICT (account_id) DO"
    " UPDATE SET secret = excluded.secret, confirmed_at = excluded.confirmed_at, last_step = excluded.last_step"
)
_IS_REQUIRED: Final = "SELECT 1 FROM meta WHERE key = 'accounts.factor_required'"
_REQUIRE: Final = "INSERT INTO meta (key, value) VALUES ('accounts.factor_required', '1') ON CONFLICT (key) DO NOTHING"
_IS_SESSION: Final = "SELECT 1 FROM sessions WHERE digest = ?"
_TABLES: Final = ("passkeys", "totp", "recovery_codes")


class SqlFactors(FactorStore):
    """`controller.ports.accounts.FactorStore` in the database of the store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def factors(self, account_id: str) -> Factors:
        return await self._store.read(partial(factors_of, account_id=account_id))

    async def add_passkey(
        self, passkey: Passkey, writes: StoreWrites, *, session: str | None = None, as_first: bool = False
    ) -> bool:
        change = partial(_add_passkey, passkey=passkey, as_first=as_first)
        return await self._in_session(change, session, writes)

    async def use_passkey(self, credential_id: bytes, sign_count: int, at: float) -> bool:
        statement = (
            "UPDATE passkeys SET sign_count = ?, last_used_at = ? WHERE credential_id = ?"
            " AND (sign_count < ? OR (sign_count = 0 AND ? = 0))"
        )
        return await self._changes(statement, sign_count, at, credential_id, sign_count, sign_count)

    async def remove_passkey(
        self,
        account_id: str,
        credential_id: bytes,
        writes: StoreWrites,
        *,
        session: str | None = None,
        keeps_one: bool = False,
    ) -> bool:
        statement = "DELETE FROM passkeys WHERE account_id = ? AND credential_id = ?"
        change = partial(_remove, statement=statement, values=(account_id, credential_id), keeps_one=keeps_one)
        return await self._in_session(change, session, writes)

    async def put_totp(
        self, totp: Totp, writes: StoreWrites, *, session: str | None = None, as_first: bool = False
    ) -> bool:
        return await self._in_session(partial(_put_totp, totp=totp, as_first=as_first), session, writes)

    async def use_totp(self, account_id: str, step: int) -> bool:
        statement = "UPDATE totp SET last_step = ? WHERE account_id = ? AND last_step < ?"
        return await self._changes(statement, step, account_id, step)

    async def remove_totp(
        self, account_id: str, writes: StoreWrites, *, session: str | None = None, keeps_one: bool = False
    ) -> bool:
        statement = "DELETE FROM totp WHERE account_id = ?"
        change = partial(_remove, statement=statement, values=(account_id,), keeps_one=keeps_one)
        return await self._in_session(change, session, writes)

    async def put_recovery_codes(
        self, account_id: str, digests: Sequence[str], writes: StoreWrites, *, session: str | None = None
    ) -> bool:
        def put(connection: SqlConnection) -> bool:
            connection.execute("DELETE FROM recovery_codes WHERE account_id = ?", (account_id,))
            rows = [(account_id, digest) for digest in digests]
            connection.executemany("INSERT INTO recovery_codes (account_id, digest) VALUES (?, ?)", rows)
            return True

        return await self._in_session(put, session, writes)

    async def use_recovery_code(self, account_id: str, digest: str, writes: StoreWrites) -> bool:
        statement = "DELETE FROM recovery_codes WHERE account_id = ? AND digest = ?"
        return await self._changes(statement, account_id, digest, writes=writes)

    async def are_required(self) -> bool:
        return await self._store.read(lambda connection: connection.execute(_IS_REQUIRED).fetchone() is not None)

    async def require(self) -> None:
        await self._store.write(lambda connection: connection.execute(_REQUIRE))

    async def _in_session(
        self, change: Callable[[SqlConnection], bool], session: str | None, writes: StoreWrites
    ) -> bool:
        """Makes the change, if the session with this digest is there still: a reset of the factors ends it."""

        def both(connection: SqlConnection) -> bool:
            there = session is None or connection.execute(_IS_SESSION, (session,)).fetchone() is not None
            return there and change(connection)

        return await self._store.change_with(writes, both, bool)

    async def _changes(self, statement: str, *values: object, writes: StoreWrites | None = None) -> bool:
        """Whether the statement changed a row; `writes` is committed with it, if it did."""
        return await self._store.change_with(
            writes or StoreWrites(), lambda connection: connection.execute(statement, values).rowcount > 0, bool
        )


def factors_of(connection: SqlConnection, account_id: str) -> Factors:
    """Returns the factors of one account."""
    passkeys = connection.execute(
        f"SELECT {_PASSKEY} FROM passkeys WHERE account_id = ? ORDER BY created_at",  # noqa: S608 - constants
        (account_id,),
    ).fetchall()
    totp = connection.execute(
        "SELECT account_id, secret, confirmed_at, last_step FROM totp WHERE account_id = ?", (account_id,)
    ).fetchone()
    (codes,) = connection.execute("SELECT count(*) FROM recovery_codes WHERE account_id = ?", (account_id,)).fetchone()
    return Factors(tuple(Passkey(*row) for row in passkeys), None if totp is None else Totp(*totp), codes)


def counts_of(connection: SqlConnection, table: str, column: str) -> dict[str, int]:
    """Returns how many rows of a table each value of a column has; both are names of this package."""
    return dict(connection.execute(f"SELECT {column}, count(*) FROM {table} GROUP BY {column}").fetchall())  # noqa: S608


def delete_factors(connection: SqlConnection, account_id: str) -> None:
    """Deletes the factors and recovery codes of one account."""
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table} WHERE account_id = ?", (account_id,))  # noqa: S608 - constants


def _remove(connection: SqlConnection, statement: str, values: tuple[str | bytes, ...], *, keeps_one: bool) -> bool:
    """Runs the statement; the first of `values` is the account."""
    if keeps_one and factors_of(connection, str(values[0])).count <= 1:
        return False
    return connection.execute(statement, values).rowcount > 0


def _put_totp(connection: SqlConnection, totp: Totp, *, as_first: bool) -> bool:
    if as_first and factors_of(connection, totp.account_id).exist:
        return False
    return connection.execute(_PUT_TOTP, astuple(totp)).rowcount > 0


def _add_passkey(connection: SqlConnection, passkey: Passkey, *, as_first: bool) -> bool:
    (count,) = connection.execute(
        "SELECT count(*) FROM passkeys WHERE account_id = ?", (passkey.account_id,)
    ).fetchone()
    if count >= MAX_PASSKEYS or (as_first and factors_of(connection, passkey.account_id).exist):
        return False
    added = connection.execute(
        f"INSERT INTO passkeys ({_PASSKEY}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
        " ON CONFLICT (credential_id) DO NOTHING",
        astuple(passkey),
    )
    return added.rowcount > 0
