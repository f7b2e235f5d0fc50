"""Accounts with their factors and sessions; tokens have owners."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_ACCOUNTS: Final = (
    # Rows are never deleted: neither id nor name is given to another account. `makers` as of `tokens`.
    """CREATE TABLE accounts (
        account_id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL,
        created_at REAL NOT NULL, enabled INTEGER NOT NULL, password TEXT NOT NULL, issuer TEXT NOT NULL,
        subject TEXT NOT NULL, makers TEXT NOT NULL, setup_digest TEXT NOT NULL, setup_until REAL NOT NULL,
        last_login_at REAL NOT NULL, password_at REAL NOT NULL) STRICT""",
    "CREATE UNIQUE INDEX accounts_name ON accounts (lower(name))",
    "CREATE UNIQUE INDEX accounts_subject ON accounts (issuer, subject) WHERE subject <> ''",
    # `digest`: SHA-256 of the secret in the cookie.
    """CREATE TABLE sessions (
        digest TEXT PRIMARY KEY, account_id TEXT NOT NULL, created_at REAL NOT NULL, last_used_at REAL NOT NULL,
        factor_at REAL NOT NULL, factor TEXT NOT NULL, peer TEXT NOT NULL, agent TEXT NOT NULL) STRICT""",
    "CREATE INDEX sessions_account ON sessions (account_id)",
    """CREATE TABLE passkeys (
        credential_id BLOB PRIMARY KEY, account_id TEXT NOT NULL, public_key BLOB NOT NULL, sign_count INTEGER NOT NULL,
        name TEXT NOT NULL, created_at REAL NOT NULL, last_used_at REAL NOT NULL) STRICT""",
    "CREATE INDEX passkeys_account ON passkeys (account_id)",
    # `secret` is sealed; `last_step` is the last time step whose code was taken.
    """CREATE TABLE totp (
        account_id TEXT PRIMARY KEY, secret TEXT NOT NULL, confirmed_at REAL NOT NULL,
        last_step INTEGER NOT NULL) STRICT""",
    """CREATE TABLE recovery_codes (
        account_id TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (account_id, digest)) STRICT, WITHOUT ROWID""",
)

_TOKENS: Final = (
    # Empty `owner`: made before there were accounts.
    "ALTER TABLE tokens ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE tokens ADD COLUMN last_used_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE tokens ADD COLUMN last_peer TEXT NOT NULL DEFAULT ''",
    # What needed `admin` before, and needs `audit` now, goes on working.
    "UPDATE tokens SET scopes = scopes || ' audit' WHERE ' ' || scopes || ' ' LIKE '% admin %'",
)

# Tokens without owner count as one person: so does what each of them contained. Ledgers of pools begin with `pool:`.
_CHARGES: Final = (
    """INSERT OR REPLACE INTO charges (ledger, subject, at) SELECT 'unowned', subject, max(at) FROM charges
        WHERE ledger <> '' AND ledger NOT LIKE 'pool:%' GROUP BY subject""",
    "DELETE FROM charges WHERE ledger <> '' AND ledger <> 'unowned' AND ledger NOT LIKE 'pool:%'",
)


@migration
def m0002_accounts(db: sqlite_utils.Database) -> None:
    """Create the tables of accounts, and give tokens an owner, last use and address."""
    for statement in (*_ACCOUNTS, *_TOKENS, *_CHARGES):
        db.execute(statement)
