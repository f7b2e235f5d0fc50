"""Copies a whole store from one engine to the other, and compares every row afterwards.

Columns that only one engine has are derived; everything else is the same in both. A copy into PostgreSQL is one
transaction, one into a file gets its name at the end: what was interrupted leaves nothing behind.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg

from controller.adapters.files import as_owner, give_name, sync_folder
from controller.adapters.postgres import audit_chain as postgres_chain
from controller.adapters.postgres import errors as postgres_errors
from controller.adapters.postgres import registration, schema
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.connection import PostgresConnection, connect
from controller.adapters.postgres.contacts import CONTACT_COLUMNS
from controller.adapters.postgres.statements import DEVICE_COLUMNS
from controller.adapters.sql import audit_chain, codec
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite import audit_chain as sqlite_chain
from controller.adapters.sqlite import schema as sqlite_schema
from controller.adapters.sqlite.lock import hold_store
from controller.adapters.sqlite.migrations.m0001_initial import FORM
from controller.adapters.sqlite.restore import verify
from controller.adapters.sqlite.statements import DEVICE_COLUMNS as SQLITE_COLUMNS
from controller.domain.audit_anchors import AuditHeads, AuditVerification
from controller.domain.audit_chain import GENESIS
from controller.domain.audit_id import FIRST_WRITER
from controller.domain.device import REPORT_FIELDS
from controller.ports.errors import StoreError
from controller.ports.leases import bucket_of

Row = tuple[Any, ...]
Progress = Callable[[str, int], None]  # table, and rows copied or compared so far

_EVERY: Final = 10_000  # rows between two calls of the progress
_OPTIONS: Final = StoreOptions()

# The columns of each table, first those by which its rows are ordered.
TABLES: Final = {
    "report_keys": ("device_id", "key", "at"),
    "commands": ("seq", "command_id", "device_id", "state", "updated_at", "body"),
    "audit": ("id", "at", "kind", "device_id", "actor", "case_id", "alert", "detail", "chain"),
    "audit_chains": ("writer", "seq", "digest"),
    "audit_pruned": ("writer", "seq", "digest", "line"),
    "audit_anchors": ("number", "at", "body", "chain"),
    "outbox": ("seq", "effect_id", "kind", "body"),
    "dead_letters": ("seq", "at", "device_id", "topic", "reason", "detail", "size", "payload"),
    "kept_rules": ("device_id", "case_id", "at", "rules"),
    "kept_subscriptions": ("device_id", "case_id", "client_id", "topic", "at", "body"),
    "identity_cases": ("kind", "name", "case_id", "body"),
    "charges": ("ledger", "subject", "at"),
    "waivers": ("waiver_id", "expires_at", "body"),
    "approvals": ("request_id", "expires_at", "body", "kind", "state", "requester", "asked_at", "may_change"),
    "broker_setup": ("one", "at", "before", "client_id", "deny_unmatched", "undoing"),
    "access_templates": ("one", "at", "actor", "body"),
    "access_sets": ("digest", "rules"),
    "access_rules": ("device_id", "digest", "previous", "written"),
    "access_grants": ("rowid", "grant_id", "device_id", "expires_at", "ended_at", "body"),
    "certificates": (
        "serial", "issuer", "kind", "name", "start_at", "end_at", "issued_at", "origin", "key", "pem", "revoked_at",
        "reason", "recorded",
    ),
    "enrolment_tokens": (
        "token_id", "digest", "uses_left", "created_at", "expires_at", "made_by", "device_class", "device_id",
        "replaces", "ids",
    ),
    "crl_numbers": ("issuer", "number"),
    "tokens": (
        "name", "digest", "created_at", "scopes", "expires_at", "makers", "owner", "last_used_at", "last_peer",
    ),
    "accounts": (
        "account_id", "name", "role", "created_at", "enabled", "password", "issuer", "subject", "makers",
        "setup_digest", "setup_until", "last_login_at", "password_at",
    ),
    "sessions": (
        "digest", "account_id", "created_at", "last_used_at", "factor_at", "factor", "peer", "agent",
    ),
    "passkeys": (
        "credential_id", "account_id", "public_key", "sign_count", "name", "created_at", "last_used_at",
    ),
    "totp": ("account_id", "secret", "confirmed_at", "last_step"),
    "recovery_codes": ("account_id", "digest"),
    "rollouts": ("number", "rollout_id", "name", "state", "created_at", "body"),
    "rollout_members": ("rollout_id", "device_id", "ring", "state", "body"),
    "notification_sinks": ("name", "body", "dropped", "failing_since", "alerted", "trouble"),
    "notification_threads": ("sink", "thread", "case_id", "told_at", "severity", "is_open", "body"),
    "notification_deliveries": (
        "seq", "key", "sink", "case_id", "severity", "state", "due", "attempts", "queued_at", "ended_at", "trouble",
        "body",
    ),
    "notification_cursors": ("writer", "seq"),
    "notification_acknowledgements": ("case_id", "by", "at", "reason"),
    "meta": ("key", "value"),
}  # fmt: skip
_OWN: Final = ("devices", "reports")  # their columns differ
_KEYS: Final = {
    "kept_rules": 2,
    "kept_subscriptions": 4,
    "identity_cases": 2,
    "charges": 2,
    "rollout_members": 2,
    "recovery_codes": 2,
    "notification_threads": 2,
}
_BY_SEQ: Final = ("commands", "outbox", "dead_letters", "notification_deliveries")
_NUMBERED: Final = {**dict.fromkeys(_BY_SEQ, "seq"), "access_grants": "rowid"}
# Rows about the tables of SQLite, and of a new store on each engine.
_NOT_COPIED: Final = {"meta": ("schema.form", FORM), "audit_chains": (FIRST_WRITER, 0, GENESIS)}
# Tables of SQLite itself, and what triggers derive.
_INTERNAL: Final = ("sqlite_sequence", "_sqlite_migrations", "device_facets", "device_findings", "device_tags")
# Every run that wrote is over.
_CHAIN: Final = (
    "INSERT INTO writers VALUES (?, '', 1, now(), now(), true, 0, 0, ?, ?) ON CONFLICT (writer)"
    " DO UPDATE SET chain_seq = excluded.chain_seq, chain_digest = excluded.chain_digest"
)
_MARKS: Final = ", ".join(["?"] * (len(REPORT_FIELDS) + 2))


@dataclass(frozen=True, slots=True)
class Copied:
    """The rows of each table, and the ends of the audit log, which both stores have."""

    rows: dict[str, int]
    heads: AuditHeads


class StoreSide(Protocol):
    """A store that is read from or written to, while no controller works with it."""

    connection: Any

    def rows(self, table: str) -> Iterator[Row]:
        """The rows in the order of their keys, with plain values."""
        ...

    def write(self, table: str, rows: Iterator[Row]) -> None: ...

    def finish(self) -> None:
        """Sets the numbers that are given next."""
        ...

    def check(self, noted: AuditHeads) -> AuditVerification: ...


def copy_store(source: Path | PostgresAddress, target: Path | PostgresAddress, progress: Progress) -> Copied:
    """Copies every row, then compares every row and verifies the audit chain of both.

    Raises:
        StoreError: a controller works with one of them, the target is not empty, or they differ; then the target is
            as it was.
    """
    with ExitStack() as stack:
        try:
            read = stack.enter_context(_source(source))
            write = stack.enter_context(_target(target))
            for table in (*_OWN, *TABLES):
                write.write(table, _counted(read.rows(table), table, progress))
            write.finish()
            counts = {table: _compare(table, read, write, progress) for table in (*_OWN, *TABLES)}
            heads = audit_chain.heads(read.connection)
            for side in (read, write):
                checked = side.check(heads)
                if not checked.is_intact:
                    raise StoreError(f"the audit log is not as it was written: {checked.flaws[0].text}")
            return Copied(counts, heads)
        except psycopg.Error as error:
            raise postgres_errors.as_store_error(error, "cannot copy the store") from error


def _counted(rows: Iterator[Row], table: str, progress: Progress) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield row
        if number % _EVERY == 0:
            progress(table, number)


def _compare(table: str, source: StoreSide, target: StoreSide, progress: Progress) -> int:
    number = 0
    for number, (one, other) in enumerate(zip_longest(source.rows(table), target.rows(table)), 1):
        if one != other:
            key = (one or other or ("",))[0]
            raise StoreError(f"the copy differs in {table} at {key!r}: nothing was kept")
        if number % _EVERY == 0:
            progress(f"{table}, compared", number)
    return number


@contextmanager
def _source(place: Path | PostgresAddress) -> Iterator[StoreSide]:
    if isinstance(place, PostgresAddress):
        with _connected(place) as connection:
            schema.check_level(connection, place.shown)
            with registration.alone(connection, read_only=True):
                _no_limits(connection)
                registration.check_at_rest(connection, place.shown)
                yield _PostgresSide(connection)
        return
    verify(place)
    with as_owner(place.absolute().parent), hold_store(place):
        file = sqlite_schema.connect(place, _OPTIONS, read_only=True)
        try:
            yield _SqliteSide(file)
        finally:
            file.close()


@contextmanager
def _target(place: Path | PostgresAddress) -> Iterator[StoreSide]:
    if isinstance(place, PostgresAddress):
        with _connected(place) as connection:
            schema.prepare(connection, place.shown)
            with registration.alone(connection):
                _no_limits(connection)
                registration.check_at_rest(connection, place.shown)
                side = _PostgresSide(connection)
                _refuse_filled(side, place.shown)
                yield side
            connection.raw.execute("ANALYZE")
        return
    with as_owner(place.absolute().parent), hold_store(place):
        if place.exists():
            raise StoreError(f"{place} exists already: a store is copied to a new file")
        partly = place.with_name(f"{place.name}.copying")
        for name in (partly.name, f"{partly.name}-wal", f"{partly.name}-shm"):  # of an interrupted attempt
            place.with_name(name).unlink(missing_ok=True)
        file = sqlite_schema.prepare(partly, _OPTIONS)
        try:
            try:
                file.execute("BEGIN IMMEDIATE")
                yield _SqliteSide(file)
                file.execute("COMMIT")
                file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                file.close()
            give_name(partly, place)
            sync_folder(place.absolute().parent)
        finally:
            partly.unlink(missing_ok=True)


@contextmanager
def _connected(place: PostgresAddress) -> Iterator[PostgresConnection]:
    connection = connect(place, "cordon store copy")
    try:
        yield connection
    finally:
        connection.close()


def _no_limits(connection: PostgresConnection) -> None:
    """A copy takes as long as it takes."""
    connection.raw.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")


def _refuse_filled(side: "_PostgresSide", shown: str) -> None:
    for table in (*_OWN, *TABLES):
        if next(side.rows(table), None) is not None:
            raise StoreError(f"{shown} has rows already (in {table}): a store is copied to an empty database")


class _SqliteSide:
    def __init__(self, connection: Any) -> None:
        self.connection = connection
        found = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        unknown = sorted(found.difference(TABLES, _OWN, _INTERNAL))
        if unknown:
            raise StoreError(f"a store on PostgreSQL has no tables yet for: {', '.join(unknown)}")

    def rows(self, table: str) -> Iterator[Row]:
        if table == "devices":
            told = ", ".join(f"devices.{name}" for name in codec.DEVICE_COLUMNS)
            stored = ", ".join(f"reports.{name}" for name in REPORT_FIELDS)
            query = (
                f"SELECT deadline_at, waits_in, {told}, {stored} FROM devices LEFT JOIN reports USING (device_id)"  # noqa: S608 - constants
                " ORDER BY device_id"
            )
            yield from ((*codec.present_row(row[2:]), *row[:2]) for row in self.connection.execute(query))
        elif table == "reports":
            yield from self.connection.execute("SELECT device_id, reported_at, body FROM reports ORDER BY device_id")
        else:
            yield from _kept(table, self.connection.execute(_select(table)))

    def write(self, table: str, rows: Iterator[Row]) -> None:
        if table == "devices":
            names, marks = ", ".join(SQLITE_COLUMNS), ", ".join("?" * len(SQLITE_COLUMNS))
            self.connection.executemany(f"INSERT INTO devices ({names}) VALUES ({marks})", rows)  # noqa: S608 - constants
        elif table == "reports":
            self.connection.executemany(
                f"INSERT INTO reports (device_id, {', '.join(REPORT_FIELDS)}, body) VALUES ({_MARKS})",  # noqa: S608 - constants
                (self._report(*row) for row in rows),
            )
        else:
            marks = ", ".join("?" * len(TABLES[table]))
            self.connection.executemany(f"REPLACE INTO {table} ({', '.join(TABLES[table])}) VALUES ({marks})", rows)  # noqa: S608 - constants

    def _report(self, device_id: str, at: float, body: bytes) -> Row:
        """A stored report has what its device said, so that neither is the later state."""
        query = f"SELECT {', '.join(REPORT_FIELDS)} FROM devices WHERE device_id = ?"  # noqa: S608 - constants
        told = self.connection.execute(query, (device_id,)).fetchone() or (0, "", at, 0, "", "", "", 0)
        fields = dict(zip(REPORT_FIELDS, told, strict=True))
        return device_id, *({**fields, "reported_at": at}.values()), body

    def finish(self) -> None:
        """A number is one more than the highest."""

    def check(self, noted: AuditHeads) -> AuditVerification:
        return sqlite_chain.check_rows(self.connection, noted)


class _PostgresSide:
    def __init__(self, connection: PostgresConnection) -> None:
        self.connection = connection

    def rows(self, table: str) -> Iterator[Row]:
        if table == "devices":
            told = ", ".join(f"contacts.{name}" for name in REPORT_FIELDS)
            query = (
                f"SELECT device_id, first_seen, last_seen, online, stale, level, state, {told}, deadline_at, waits_in"  # noqa: S608 - constants
                " FROM devices JOIN contacts USING (device_id) ORDER BY device_id"
            )
        elif table == "reports":
            query = "SELECT device_id, at, body FROM reports ORDER BY device_id"
        else:
            query = _select(table)
        name = f"{table}_{id(self)}"
        for row in _kept(table, self.connection.stream(query, name=name)):
            yield tuple(int(value) if isinstance(value, bool) else value for value in row)

    def write(self, table: str, rows: Iterator[Row]) -> None:
        if table == "devices":
            self._write_devices(rows)
            return
        if table == "audit_chains":  # a view
            self.connection.executemany(_CHAIN, rows)
            return
        columns: Sequence[str] = ("device_id", "at", "body") if table == "reports" else TABLES[table]
        more: Callable[[Row], Row] = lambda _row: ()  # noqa: E731 - most have no more columns
        if table == "outbox":
            columns, more = (*columns, "device_id", "bucket"), _outbox_columns
        self._fill(table, columns, ((*row, *more(row)) for row in rows))

    def _fill(self, table: str, columns: Sequence[str], rows: Iterator[Row]) -> None:
        text = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with self.connection.raw.cursor() as cursor, cursor.copy(text) as copy:
            for row in rows:
                copy.write_row(row)

    def _write_devices(self, rows: Iterator[Row]) -> None:
        """One pass for each of the two tables: the contacts are read back from a table of this transaction."""
        names = (*SQLITE_COLUMNS, "bucket")
        both = f"SELECT {', '.join(names)} FROM devices JOIN contacts USING (device_id, bucket)"  # noqa: S608 - constants
        self.connection.execute(f"CREATE TEMPORARY TABLE incoming ON COMMIT DROP AS {both} WITH NO DATA")
        self._fill("incoming", names, ((*_booleans(row), bucket_of(row[0])) for row in rows))
        told = ", ".join(DEVICE_COLUMNS)
        self.connection.execute(f"INSERT INTO devices ({told}) SELECT {told} FROM incoming ORDER BY device_id")  # noqa: S608 - constants
        told = ", ".join((*CONTACT_COLUMNS, "bucket"))
        self.connection.execute(
            f"INSERT INTO contacts ({told}, version) SELECT {told}, 1 FROM incoming ORDER BY device_id"  # noqa: S608 - constants
        )

    def finish(self) -> None:
        for table, column in _NUMBERED.items():
            self.connection.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), coalesce(max({column}), 0) + 1, false)"  # noqa: S608 - constants
                f" FROM {table}"
            )

    def check(self, noted: AuditHeads) -> AuditVerification:
        return postgres_chain.check_rows(self.connection, noted)


def _select(table: str) -> str:
    columns = TABLES[table]
    return f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(columns[: _KEYS.get(table, 1)])}"  # noqa: S608 - constants


def _kept(table: str, rows: Iterator[Row]) -> Iterator[Row]:
    left_out = _NOT_COPIED.get(table)
    return (row for row in rows if row != left_out)


def _booleans(row: Row) -> Row:
    device_id, first_seen, last_seen, online, stale, *rest = row
    return device_id, first_seen, last_seen, None if online is None else bool(online), bool(stale), *rest


def _outbox_columns(row: Row) -> Row:
    device_id = str(json.loads(row[3])["device_id"])
    return device_id, bucket_of(device_id)
