"""Operators as principals, with accounts and the tokens that they hold."""

from dataclasses import replace

from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sqlite.store import SqliteStore
from controller.domain.accounts.account import Account
from controller.domain.accounts.roles import ADMIN_ROLE
from controller.domain.principal import MakingRecord, Principal
from controller.domain.scopes import ALL
from controller.ports.store import ApiToken, StoreWrites


def account_of(name: str, role: str = ADMIN_ROLE) -> Account:
    """An account that nobody made; the id follows from the name."""
    return Account(f"id-{name}", name, role, 0.0)


def token_of(name: str) -> ApiToken:
    """A token with all scopes; owner and digest follow from the name."""
    return ApiToken(name, name.encode().hex().ljust(64, "0"), 0.0, ALL, owner=account_of(name).account_id)


def person(name: str) -> Principal:
    """The holder of `token_of(name)`."""
    return token_of(name).principal_of(account_of(name))


async def put_holder(
    store: SqliteStore, token: ApiToken, role: str = ADMIN_ROLE, makers: tuple[MakingRecord, ...] = ()
) -> Account:
    """Stores a token, with an account of the same name that owns it."""
    account = replace(account_of(token.name, role), makers=makers)
    await SqlAccounts(store).add_account(account, StoreWrites())
    await store.put_token(replace(token, owner=account.account_id))
    return account
