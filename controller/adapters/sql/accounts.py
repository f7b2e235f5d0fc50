"""Accounts and sessions: what is checked about all of them is checked in the transaction that changes one."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from functools import partial
from typing import Any, Final

from pydantic import TypeAdapter

from controller.adapters.sql import codec
from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.factors import counts_of, delete_factors, factors_of
from controller.adapters.sql.store import SqlStore
from controller.domain.accounts.account import MAX_ACCOUNTS, Account, AccountDecision, AccountRefusal, look_of
from controller.domain.accounts.session import ABSOLUTE, IDLE, MAX_SESSIONS, SESSION_DIGITS, Session
from controller.domain.principal import MakingRecord
from controller.ports.accounts import AccountOverview, AccountStore
from controller.ports.store import StoreWrites

_FIELDS: Final = (
    "account_id, name, role, created_at, enabled, password, issuer, subject, makers, setup_digest, setup_until,"
    " last_login_at, password_at"
)
_SESSION: Final = "digest, account_id, created_at, last_used_at, factor_at, factor, peer, agent"
_JOINED: Final = ", ".join(f"a.{name.strip()}" for name in _FIELDS.split(","))
_ADD: Final = f"INSERT INTO accounts ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_PUT: Final = f"UPDATE accounts SET ({_FIELDS}) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE account_id = ?"  # noqa: S608
_MAKERS: Final = TypeAdapter(tuple[tuple[str, str, float], ...])
_OLDEST: Final = (
    "DELETE FROM sessions WHERE account_id = ? AND digest NOT IN (SELECT digest FROM (SELECT digest, row_number() OVER"
    " (PARTITION BY factor_at > 0 ORDER BY last_used_at DESC, digest) AS place FROM sessions WHERE account_id = ?)"
    " AS placed WHERE place <= ?)"
)


class SqlAccounts(AccountStore):
    """`controller.ports.accounts.AccountStore` in the database of the store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def accounts(self) -> Sequence[Account]:
        return await self._store.read(_every)

    async def account(self, account_id: str) -> Account | None:
        return await self._store.read(partial(_one, where="account_id = ?", values=(account_id,)))

    async def account_named(self, name: str) -> Account | None:
        return await self._store.read(partial(_one, where="lower(name) = ?", values=(name.lower(),)))

    async def account_with_code(self, digest: str) -> Account | None:
        return await self._store.read(partial(_one, where="setup_digest = ?", values=(digest,)))

    async def account_of_subject(self, issuer: str, subject: str) -> Account | None:
        if not subject:
            return None
        return await self._store.read(partial(_one, where="issuer = ? AND subject = ?", values=(issuer, subject)))

    async def overviews(self) -> Sequence[AccountOverview]:
        return await self._store.read(_overviews)

    async def add_account(self, account: Account, writes: StoreWrites) -> Account | AccountRefusal:
        return await self._store.change_with(writes, partial(_add, account=account), _is_account)

    async def change_account(
        self,
        account_id: str,
        decide: AccountDecision,
        now: float,
        writes: StoreWrites,
        *,
        resets_factors: bool = False,
    ) -> Account | AccountRefusal:
        change = partial(_change, account_id=account_id, decide=decide, now=now, resets_factors=resets_factors)
        return await self._store.change_with(writes, change, _is_account)

    async def session(self, digest: str) -> tuple[Session, Account] | None:
        return await self._store.read(partial(_session, digest=digest))

    async def sessions(self, account_id: str) -> Sequence[Session]:
        return await self._store.read(partial(_sessions, account_id=account_id))

    async def add_session(
        self, session: Session, writes: StoreWrites, *, replaces: str = "", password_at: float | None = None
    ) -> bool:
        change = partial(_add_session, session=session, replaces=replaces, password_at=password_at)
        return await self._store.change_with(writes, change, bool)

    async def touch_session(self, digest: str, at: float) -> None:
        statement = "UPDATE sessions SET last_used_at = ? WHERE digest = ? AND last_used_at < ?"
        await self._execute(statement, (at, digest, at))

    async def end_sessions(self, account_id: str, writes: StoreWrites, *, session_id: str = "", but: str = "") -> int:
        name = f"substr(digest, 1, {SESSION_DIGITS})"
        where, value = (f"{name} = ?", session_id) if session_id else (f"{name} <> ?", but)
        statement = f"DELETE FROM sessions WHERE account_id = ? AND {where}"  # noqa: S608 - constants
        return await self._store.change_with(
            writes, lambda connection: connection.execute(statement, (account_id, value)).rowcount, bool
        )

    async def touch_token(self, digest: str, at: float, peer: str) -> None:
        await self._execute("UPDATE tokens SET last_used_at = ?, last_peer = ? WHERE digest = ?", (at, peer, digest))

    async def _execute(self, statement: str, values: tuple[Any, ...]) -> int:
        return await self._store.write(lambda connection: connection.execute(statement, values).rowcount)


def _is_account(found: Account | AccountRefusal) -> bool:
    return isinstance(found, Account)


def _every(connection: SqlConnection) -> list[Account]:
    return [_account(row) for row in connection.execute(f"SELECT {_FIELDS} FROM accounts ORDER BY name")]  # noqa: S608


def _one(connection: SqlConnection, where: str, values: tuple[str, ...]) -> Account | None:
    row = connection.execute(f"SELECT {_FIELDS} FROM accounts WHERE {where}", values).fetchone()  # noqa: S608 - bound
    return None if row is None else _account(row)


def _overviews(connection: SqlConnection) -> list[AccountOverview]:
    sessions, tokens = counts_of(connection, "sessions", "account_id"), counts_of(connection, "tokens", "owner")
    return [
        AccountOverview(
            one,
            factors_of(connection, one.account_id),
            sessions.get(one.account_id, 0),
            tokens.get(one.account_id, 0),
        )
        for one in _every(connection)
    ]


def _add(connection: SqlConnection, account: Account) -> Account | AccountRefusal:
    (count,) = connection.execute("SELECT count(*) FROM accounts").fetchone()
    if _is_name_used(connection, account):
        return AccountRefusal.NAME_USED
    if count >= MAX_ACCOUNTS:
        return AccountRefusal.TOO_MANY
    if _has_others_subject(connection, account):
        return AccountRefusal.SUBJECT_USED
    connection.execute(_ADD, _row(account))
    return account


def _is_name_used(connection: SqlConnection, account: Account) -> bool:
    """Whether the name was given; one that a provider sends must not even look like another one."""
    names = [name for (name,) in connection.execute("SELECT name FROM accounts")]
    if account.subject:
        return look_of(account.name) in map(look_of, names)
    return account.name.lower() in (name.lower() for name in names)


def _change(
    connection: SqlConnection, account_id: str, decide: AccountDecision, now: float, *, resets_factors: bool
) -> Account | AccountRefusal:
    there = _every(connection)
    before = next((one for one in there if one.account_id == account_id), None)
    if before is None:
        return AccountRefusal.UNKNOWN
    after = decide(before, there)
    if isinstance(after, AccountRefusal):
        return after
    if _has_others_subject(connection, after):
        return AccountRefusal.SUBJECT_USED
    if not after.enabled:
        after = replace(after, setup_digest="", setup_until=0.0)
    connection.execute(_PUT, (*_row(after), account_id))
    if before.enabled and not after.enabled:
        connection.execute(
            "UPDATE tokens SET expires_at = ? WHERE owner = ? AND (expires_at IS NULL OR expires_at > ?)",
            (now, account_id, now),
        )
    if resets_factors:
        delete_factors(connection, account_id)
    if before.password_at != after.password_at or not after.enabled or resets_factors:
        connection.execute("DELETE FROM sessions WHERE account_id = ?", (account_id,))
    return after


def _has_others_subject(connection: SqlConnection, account: Account) -> bool:
    if not account.subject:
        return False
    found = _one(connection, "issuer = ? AND subject = ?", (account.issuer, account.subject))
    return found is not None and found.account_id != account.account_id


def _session(connection: SqlConnection, digest: str) -> tuple[Session, Account] | None:
    fields = ", ".join(f"s.{name.strip()}" for name in _SESSION.split(","))
    row = connection.execute(
        f"SELECT {fields}, {_JOINED} FROM sessions AS s JOIN accounts AS a USING (account_id) WHERE s.digest = ?",  # noqa: S608
        (digest,),
    ).fetchone()
    return None if row is None else (Session(*row[:8]), _account(row[8:]))


def _sessions(connection: SqlConnection, account_id: str) -> list[Session]:
    rows = connection.execute(
        f"SELECT {_SESSION} FROM sessions WHERE account_id = ? ORDER BY last_used_at DESC, digest",  # noqa: S608
        (account_id,),
    )
    return [Session(*row) for row in rows]


def _add_session(connection: SqlConnection, session: Session, replaces: str, password_at: float | None) -> bool:
    owner = _one(connection, "account_id = ?", (session.account_id,))
    if owner is None or not owner.enabled or password_at not in (None, owner.password_at):
        return False
    if replaces:
        gone = connection.execute(
            "DELETE FROM sessions WHERE digest = ? AND account_id = ?", (replaces, session.account_id)
        )
        if gone.rowcount == 0:
            return False
    connection.execute(
        f"INSERT INTO sessions ({_SESSION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
        astuple(session),
    )
    if not replaces:
        over = (session.created_at - IDLE, session.created_at - ABSOLUTE)
        connection.execute("DELETE FROM sessions WHERE last_used_at <= ? OR created_at <= ?", over)
        signed_in = "UPDATE accounts SET last_login_at = ? WHERE account_id = ?"
        connection.execute(signed_in, (session.created_at, session.account_id))
    connection.execute(_OLDEST, (session.account_id, session.account_id, MAX_SESSIONS))
    return True


def _row(account: Account) -> tuple[Any, ...]:
    return (
        account.account_id,
        account.name,
        account.role,
        account.created_at,
        int(account.enabled),
        account.password,
        account.issuer,
        account.subject,
        codec.dump([astuple(maker) for maker in account.makers]),
        account.setup_digest,
        account.setup_until,
        account.last_login_at,
        account.password_at,
    )


def _account(row: Sequence[Any]) -> Account:
    account_id, name, role, created_at, enabled, password, issuer, subject, makers, *rest = row
    found = codec.read(f"the account {name}", lambda: _MAKERS.validate_json(makers))
    made = tuple(MakingRecord(*one) for one in found)
    return Account(account_id, name, role, created_at, bool(enabled), password, issuer, subject, made, *rest)
