"""The whole schema of the store.

Columns hold the values that lists, timers and joins use; `body` and `state` hold the rest of a value as one JSON object
(`controller.adapters.sql.codec`). Times are Unix seconds. Indexes are only those that a query needs.
"""

import hashlib
from typing import Final

import sqlite_utils

from controller.adapters.sqlite.migrations.registry import migration
from controller.domain.audit_chain import GENESIS, ChainHead

_DEVICES: Final = (
    # The columns after `state` change with every report and are kept out of its JSON.
    """CREATE TABLE devices (
        device_id TEXT PRIMARY KEY, first_seen REAL NOT NULL, last_seen REAL NOT NULL, online INTEGER,
        stale INTEGER NOT NULL, level TEXT NOT NULL, report_seq INTEGER NOT NULL, digest TEXT NOT NULL,
        state TEXT NOT NULL, reported_at REAL NOT NULL DEFAULT 0, accepted INTEGER NOT NULL DEFAULT 0,
        boot_id TEXT NOT NULL DEFAULT '', agent TEXT NOT NULL DEFAULT '', judged_by TEXT NOT NULL DEFAULT '',
        satisfied INTEGER NOT NULL DEFAULT 0) STRICT""",
    # The last full report of each device, with the device's columns as they were when it was stored.
    """CREATE TABLE reports (
        device_id TEXT PRIMARY KEY, report_seq INTEGER NOT NULL, digest TEXT NOT NULL, reported_at REAL NOT NULL,
        accepted INTEGER NOT NULL, boot_id TEXT NOT NULL, agent TEXT NOT NULL, judged_by TEXT NOT NULL,
        satisfied INTEGER NOT NULL, body BLOB NOT NULL) STRICT""",
    # The public key of each device, as in its certificate (SubjectPublicKeyInfo).
    "CREATE TABLE report_keys (device_id TEXT PRIMARY KEY, key BLOB NOT NULL, at REAL NOT NULL) STRICT",
    """CREATE TABLE commands (
        seq INTEGER PRIMARY KEY, command_id TEXT NOT NULL UNIQUE, device_id TEXT NOT NULL, state TEXT NOT NULL,
        updated_at REAL NOT NULL, body TEXT NOT NULL) STRICT""",
    "CREATE INDEX commands_device ON commands (device_id)",
    "CREATE INDEX commands_state ON commands (state)",
)

_AUDIT: Final = (
    # `chain` is the digest of the row before, followed by this row's own.
    """CREATE TABLE audit (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, device_id TEXT NOT NULL,
        actor TEXT NOT NULL, case_id TEXT NOT NULL, alert INTEGER NOT NULL, detail TEXT, chain BLOB) STRICT""",
    "CREATE INDEX audit_device ON audit (device_id)",
    "CREATE INDEX audit_case ON audit (case_id) WHERE case_id <> ''",
    "CREATE INDEX audit_alert ON audit (seq) WHERE alert = 1",
)

_EFFECTS: Final = (
    """CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY, effect_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, body TEXT NOT NULL) STRICT""",
    """CREATE TABLE dead_letters (
        seq INTEGER PRIMARY KEY, at REAL NOT NULL, device_id TEXT NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL,
        detail TEXT NOT NULL, size INTEGER NOT NULL, payload BLOB NOT NULL) STRICT""",
)

_CONTAINMENT: Final = (
    # What a containment overwrote at the broker, so that a release can put it back.
    """CREATE TABLE kept_rules (
        device_id TEXT NOT NULL, case_id TEXT NOT NULL, at REAL NOT NULL, rules TEXT NOT NULL,
        PRIMARY KEY (device_id, case_id)) STRICT""",
    # `client_id`: the session of a contained user, empty for a device's own.
    """CREATE TABLE kept_subscriptions (
        device_id TEXT NOT NULL, case_id TEXT NOT NULL, client_id TEXT NOT NULL, topic TEXT NOT NULL, at REAL NOT NULL,
        body TEXT NOT NULL, PRIMARY KEY (device_id, case_id, client_id, topic)) STRICT""",
    # Containments of user names and certificates.
    """CREATE TABLE identity_cases (
        kind TEXT NOT NULL, name TEXT NOT NULL, case_id TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (kind, name)) STRICT""",
)

_GUARDS: Final = (
    # `ledger` is empty for containments by policy, else the operator; `subject` is the device.
    """CREATE TABLE charges (
        ledger TEXT NOT NULL, subject TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (ledger, subject)) STRICT""",
    "CREATE TABLE waivers (waiver_id TEXT PRIMARY KEY, expires_at REAL NOT NULL, body TEXT NOT NULL) STRICT",
    "CREATE TABLE approvals (request_id TEXT PRIMARY KEY, expires_at REAL NOT NULL, body TEXT NOT NULL) STRICT",
)

_BROKER: Final = (
    # One row each: there is one broker, and one set of templates in force.
    """CREATE TABLE broker_setup (
        one INTEGER PRIMARY KEY CHECK (one = 1), at REAL NOT NULL, before TEXT NOT NULL, client_id INTEGER NOT NULL,
        deny_unmatched INTEGER NOT NULL, undoing INTEGER NOT NULL DEFAULT 0) STRICT""",
    """CREATE TABLE access_templates (
        one INTEGER PRIMARY KEY CHECK (one = 1), at REAL NOT NULL, actor TEXT NOT NULL, body TEXT NOT NULL) STRICT""",
    # Devices of a class have the same rules: each set is stored once. `previous` is what may still be at the broker
    # while `written` is 0.
    "CREATE TABLE access_sets (digest TEXT PRIMARY KEY, rules TEXT NOT NULL) STRICT",
    """CREATE TABLE access_rules (
        device_id TEXT PRIMARY KEY, digest TEXT NOT NULL, previous TEXT NOT NULL, written INTEGER NOT NULL) STRICT""",
    """CREATE TABLE access_grants (
        grant_id TEXT PRIMARY KEY, device_id TEXT NOT NULL, expires_at REAL NOT NULL, ended_at REAL,
        body TEXT NOT NULL) STRICT""",
    "CREATE INDEX access_grants_open ON access_grants (device_id) WHERE ended_at IS NULL",
)

_IDENTITY: Final = (
    # `recorded` is 0 until the audit has a line for it: certificates are also issued while no controller runs.
    """CREATE TABLE certificates (
        serial TEXT PRIMARY KEY, issuer TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, start_at REAL NOT NULL,
        end_at REAL NOT NULL, issued_at REAL NOT NULL, origin TEXT NOT NULL, key TEXT NOT NULL, pem TEXT NOT NULL,
        revoked_at REAL, reason TEXT NOT NULL, recorded INTEGER NOT NULL) STRICT""",
    "CREATE INDEX certificates_name ON certificates (name)",
    "CREATE INDEX certificates_revoked ON certificates (revoked_at) WHERE revoked_at IS NOT NULL",
    "CREATE INDEX certificates_new ON certificates (serial) WHERE recorded = 0",
    "CREATE INDEX certificates_issued ON certificates (issued_at)",
    "CREATE INDEX certificates_key ON certificates (key)",
    "CREATE INDEX certificates_end ON certificates (end_at) WHERE recorded = 1",
    """CREATE TABLE enrolment_tokens (
        token_id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, uses_left INTEGER NOT NULL, created_at REAL NOT NULL,
        expires_at REAL NOT NULL, made_by TEXT NOT NULL, device_class TEXT NOT NULL, device_id TEXT NOT NULL,
        replaces INTEGER NOT NULL, ids TEXT NOT NULL DEFAULT '') STRICT""",
    "CREATE TABLE crl_numbers (issuer TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT",
    # `makers`: who made the token, who made that one, and so on, as JSON.
    """CREATE TABLE tokens (
        name TEXT PRIMARY KEY, digest TEXT NOT NULL, created_at REAL NOT NULL, scopes TEXT NOT NULL DEFAULT '',
        expires_at REAL, makers TEXT NOT NULL DEFAULT '[]') STRICT""",
)

_ROLLOUTS: Final = (
    """CREATE TABLE rollouts (
        number INTEGER PRIMARY KEY, rollout_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, state TEXT NOT NULL,
        created_at REAL NOT NULL, body TEXT NOT NULL) STRICT""",
    # Read ring by ring, written by device; no second index to keep.
    """CREATE TABLE rollout_members (
        rollout_id TEXT NOT NULL, device_id TEXT NOT NULL, ring INTEGER NOT NULL, state TEXT NOT NULL,
        body TEXT NOT NULL, PRIMARY KEY (rollout_id, device_id)) STRICT, WITHOUT ROWID""",
)

_META: Final = ("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",)

_ALL: Final = (*_DEVICES, *_AUDIT, *_EFFECTS, *_CONTAINMENT, *_GUARDS, *_BROKER, *_IDENTITY, *_ROLLOUTS, *_META)
# Tells the tables of development versions, which have no migrations among each other, from those of this version.
FORM: Final = hashlib.sha256("\n".join(_ALL).encode()).hexdigest()[:16]
FORM_KEY: Final = "schema.form"  # in `meta`


@migration
def m0001_initial(db: sqlite_utils.Database) -> None:
    """Create every table, and an empty audit chain."""
    for statement in _ALL:
        db.execute(statement)
    db.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (FORM_KEY, FORM))
    # The key is written here, not imported: a migration never changes its meaning.
    db.execute("INSERT INTO meta (key, value) VALUES ('audit.anchor', ?)", (str(ChainHead(0, GENESIS)),))
