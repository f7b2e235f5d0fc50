"""The registry of certificates, enrolment tokens, and the numbers of revocation lists."""

from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration

_TABLES: Final = (
    # `recorded`: whether the audit tells of it; certificates are also made while no controller runs.
    """CREATE TABLE certificates (
        serial TEXT PRIMARY KEY, issuer TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, start_at REAL NOT NULL,
        end_at REAL NOT NULL, issued_at REAL NOT NULL, origin TEXT NOT NULL, key TEXT NOT NULL, pem TEXT NOT NULL,
        revoked_at REAL, reason TEXT NOT NULL, recorded INTEGER NOT NULL) STRICT""",
    "CREATE INDEX certificates_name ON certificates (name)",
    "CREATE INDEX certificates_revoked ON certificates (revoked_at) WHERE revoked_at IS NOT NULL",
    "CREATE INDEX certificates_new ON certificates (serial) WHERE recorded = 0",
    "CREATE INDEX certificates_issued ON certificates (issued_at)",
    """CREATE TABLE enrolment_tokens (
        token_id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, uses_left INTEGER NOT NULL, created_at REAL NOT NULL,
        expires_at REAL NOT NULL, made_by TEXT NOT NULL, device_class TEXT NOT NULL, device_id TEXT NOT NULL,
        replaces INTEGER NOT NULL) STRICT""",
    "CREATE TABLE crl_numbers (issuer TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT",
)


@migration
def m0005_authority(db: sqlite_utils.Database) -> None:
    """Certificates, enrolment tokens, numbers of revocation lists."""
    for statement in _TABLES:
        db.execute(statement)
