"""Accounts on the controller's machine: in the store, beside a running controller or before its start."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from controller.adapters.password_hashing import Argon2Hasher
from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sql.store import SqlStore
from controller.adapters.system import UlidGenerator
from controller.api.auth import new_token
from controller.api.fields import rfc3339, to_datetime
from controller.api.tokens import MAX_TOKENS, audit_of
from controller.app.offline import open_store
from controller.domain.accounts.account import Account
from controller.domain.accounts.passwords import check_password
from controller.domain.accounts.roles import Roles
from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.principal import is_reserved
from controller.domain.scopes import Scope
from controller.packs import common_passwords
from controller.ports.accounts import AccountStore
from controller.ports.errors import StoreError
from controller.ports.store import ApiToken, TokenChange
from controller.service.accounts.operations import AccountOperations, Administrator, new_code
from controller.service.approvals.book import end_requests_of
from controller.service.settings.settings import StoreSettings


@dataclass(frozen=True, slots=True)
class OfflineAccounts:
    """The accounts of a store, and what changes them."""

    store: AccountStore
    change: AccountOperations
    tokens: SqlStore


@contextlib.asynccontextmanager
async def open_accounts(place: Path | StoreSettings, roles: Roles) -> AsyncIterator[OfflineAccounts]:
    """The accounts in a store, also while a controller runs.

    Raises:
        ControllerError: it cannot be opened.
    """
    async with open_store(place) as store:
        requests = (await store.guard_books()).requests
        accounts, ends = SqlAccounts(store), partial(end_requests_of, requests)
        operations = AccountOperations(accounts, roles, lambda _batch: None, ends)
        yield OfflineAccounts(accounts, operations, store)


BY_MACHINE: Final = Administrator()
now = time.time


def written(at: float) -> str | None:
    """A time (Unix seconds) as the API writes it; None for 0."""
    return rfc3339(to_datetime(at)) if at else None


async def hash_of(password: str, name: str) -> str:
    """The hash of a new password of this account.

    Raises:
        WeakPasswordError: it cannot be one.
    """
    check_password(password, name, common_passwords())
    return await Argon2Hasher().hashed(password)


async def give_code(accounts: OfflineAccounts, account: Account, by: Administrator) -> str:
    """Gives the account a one-time code, and returns it."""
    code = new_code()
    await accounts.change.give_setup_code(account, digest_of(code), by, now())
    return code


async def reset_factors(accounts: OfflineAccounts, account: Account, by: Administrator) -> str:
    """Removes factors and password of the account; returns the one-time code, empty where it gets none."""
    code = new_code()
    after = await accounts.change.reset_factors(account, digest_of(code), by, now())
    return code if after.setup_digest else ""


def new_account(name: str, role: str) -> Account:
    """An account with an id that no other has, to be created."""
    at = now()
    return Account(UlidGenerator().new(at), name, role, at)


async def new_account_with_token(
    accounts: OfflineAccounts, name: str, role: str, scopes: Sequence[Scope], by: Administrator
) -> str:
    """Creates an account, with a token of the same name that never ends; returns the secret of the token.

    Raises:
        ControllerError: the name was given before.
    """
    account = await accounts.change.create(new_account(name, role), by)
    return await add_token(accounts, account, name, scopes, by)


async def add_token(
    accounts: OfflineAccounts, account: Account, name: str, scopes: Sequence[Scope], by: Administrator
) -> str:
    """Stores a token of this account that never ends, with its audit line; returns its secret.

    Raises:
        StoreError: the name was given before.
    """
    secret = new_token()
    token = ApiToken(name, digest_of(secret), now(), tuple(scopes), owner=account.account_id)
    if is_reserved(name):
        raise StoreError(f"no token is called {name}: the audit names the machine so")
    batch = audit_of(AuditKind.TOKEN_CREATED, by.actor, token, account.name, token.created_at, alerts=by.alerts)
    change = await accounts.tokens.add_token(token, MAX_TOKENS, batch.to_writes())
    if change is not TokenChange.DONE:
        raise StoreError(f"the token {name} cannot be added: {change.value}")
    return secret
