"""Listings, in statements that both engines understand."""

from collections.abc import Sequence
from typing import Any, Final

from controller.adapters.sql import audit_chain, codec
from controller.adapters.sql.connection import Dialect, SqlConnection
from controller.domain.audit_id import AuditCursor, AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry, CommandRecord, Effect
from controller.domain.record_budget import FROM_STRANGERS, ROW_BYTES, RecordUse
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import StoreError, UnknownRowError
from controller.ports.store import DeadLetter, StoredAuditEntry

MAX_ROWS: Final = 10_000  # rows of one listing
AUDIT_COLUMNS: Final = "id, at, kind, device_id, actor, case_id, detail, alert"

_KINDS: Final = frozenset(AuditKind)
_LISTED: Final = (
    "devices",
    "reports",
    "outbox",
    "commands",
    "dead_letters",
    "kept_rules",
    "kept_subscriptions",
    "identity_cases",
    "tokens",
)


def check_limit(limit: int) -> int:
    """Returns the limit of a listing.

    Raises:
        StoreError: it is not between 1 and `MAX_ROWS`.
    """
    if not 1 <= limit <= MAX_ROWS:
        raise StoreError(f"a listing has between 1 and {MAX_ROWS} rows, not {limit}")
    return limit


def report(connection: SqlConnection, device_id: str) -> bytes | None:
    """Returns a device's last full report, as it was sent."""
    row = connection.execute("SELECT body FROM reports WHERE device_id = ?", (device_id,)).fetchone()
    return None if row is None else row[0]


def reports(connection: SqlConnection, after: str, limit: int) -> list[tuple[str, bytes]]:
    """Returns ids and full reports of devices in the order of ids, after the id `after`."""
    return connection.execute(
        "SELECT device_id, body FROM reports WHERE device_id > ? ORDER BY device_id LIMIT ?",
        (after, check_limit(limit)),
    ).fetchall()


def effects(connection: SqlConnection) -> list[Effect]:
    """Returns pending effects, oldest first."""
    return [
        codec.effect_from(*row) for row in connection.execute("SELECT effect_id, kind, body FROM outbox ORDER BY seq")
    ]


def keep_rules(connection: SqlConnection, device_id: str, case_id: str, rules: AccessRules, at: float) -> None:
    """Saves the rules that a client had before the case; the first rules of a case stay."""
    connection.execute(
        "INSERT INTO kept_rules (device_id, case_id, at, rules) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (device_id, case_id) DO NOTHING",
        (device_id, case_id, at, codec.dump_rules(rules)),
    )


def kept_rules(connection: SqlConnection, device_id: str, case_id: str) -> AccessRules | None:
    found = connection.execute(
        "SELECT rules FROM kept_rules WHERE device_id = ? AND case_id = ?", (device_id, case_id)
    ).fetchone()
    return None if found is None else codec.load_rules(device_id, found[0])


def audit(
    connection: SqlConnection,
    wanted: dict[str, str | None],
    *,
    alerts_only: bool,
    after: AuditCursor | None,
    limit: int,
    newest_first: bool,
    kinds: Sequence[str] = (),
    since: float | None = None,
    until: float | None = None,
) -> list[StoredAuditEntry]:
    """Returns audit entries; `wanted` has the columns that must be equal, None for any.

    Raises:
        UnknownRowError: there is no line `after`.
    """
    where, values = _equal(wanted)
    if kinds:
        where.append(f"kind IN ({', '.join('?' * len(kinds))})")
        values += kinds
    for moment, compared in ((since, ">="), (until, "<")):
        if moment is not None:
            where.append(f"at {compared} ?")
            values.append(float(moment))
    if wanted.get("case_id"):
        where.append("case_id <> ''")  # enables the partial index
    if alerts_only:
        where.append("alert = 1")
    if after is not None:
        where.append("(at, id) < (?, ?)" if newest_first else "(at, id) > (?, ?)")
        values += (_time_of(connection, after), after.id.key)
    way = "DESC" if newest_first else "ASC"
    rows = connection.execute(
        f"SELECT {AUDIT_COLUMNS} FROM audit WHERE {' AND '.join(where)} ORDER BY at {way}, id {way} LIMIT ?",  # noqa: S608 - values are bound
        (*values, limit),
    )
    return list(map(audit_entry, rows))


def audit_entry(row: tuple[Any, ...]) -> StoredAuditEntry:
    """Returns the entry of a row with `AUDIT_COLUMNS`."""
    key, at, kind, device_id, actor, case_id, detail, alert = row
    entry = _entry(kind, device_id, actor, case_id, codec.load_detail(detail), alert=bool(alert))
    return StoredAuditEntry(AuditId.of_key(key), at, entry)


def _time_of(connection: SqlConnection, cursor: AuditCursor) -> float:
    if cursor.at is not None:
        return cursor.at
    found = connection.execute("SELECT at FROM audit WHERE id = ?", (cursor.id.key,)).fetchone()
    if found is None:
        raise UnknownRowError(str(cursor.id))
    return float(found[0])


def _entry(
    kind: str, device_id: str, actor: str, case_id: str, detail: dict[str, object] | None, *, alert: bool
) -> AuditEntry:
    if kind not in _KINDS:  # written by a newer version
        detail = {**(detail or {}), "stored_kind": kind}
        return AuditEntry(AuditKind.AUDIT_UNKNOWN_KIND, device_id, actor, case_id, detail, alert)
    return AuditEntry(AuditKind(kind), device_id, actor, case_id, detail, alert)


def commands(
    connection: SqlConnection, wanted: dict[str, str | None], limit: int, after: str | None = None
) -> list[CommandRecord]:
    """Returns commands, newest first, from the one after `after` on.

    Raises:
        UnknownRowError: there is no command `after`.
    """
    where, values = _equal(wanted)
    if after is not None:
        row = connection.execute("SELECT seq FROM commands WHERE command_id = ?", (after,)).fetchone()
        if row is None:
            raise UnknownRowError(after)
        where.append("seq < ?")
        values.append(row[0])
    rows = connection.execute(
        f"SELECT body FROM commands WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - bound
        (*values, limit),
    )
    return [codec.command_from(body) for (body,) in rows]


def dead_letters(
    connection: SqlConnection, wanted: dict[str, str | None], limit: int, after: int = 0
) -> list[DeadLetter]:
    """Returns rejected messages, newest first, from the one after `after` on."""
    where, values = _equal(wanted)
    if after:
        where.append("seq < ?")
        values.append(after)
    rows = connection.execute(
        "SELECT at, device_id, topic, reason, detail, size, payload, seq FROM dead_letters"  # noqa: S608 - values are bound
        f" WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?",
        (*values, limit),
    )
    return [DeadLetter(*row) for row in rows]


def record_use(connection: SqlConnection, dialect: Dialect, since: float) -> list[RecordUse]:
    """Returns what the audit holds of each device since a time; reads the rows since then and no older ones."""
    rows = connection.execute(
        f"SELECT device_id, count(*), sum({dialect.detail_bytes}), max(CASE WHEN kind = ? THEN 1 ELSE 0 END)"  # noqa: S608 - constants
        " FROM audit WHERE at >= ? AND device_id <> '' AND kind NOT IN (?, ?) GROUP BY device_id",
        (AuditKind.AUDIT_BUDGET_USED_UP.value, float(since), *sorted(FROM_STRANGERS)),
    )
    return [
        RecordUse(device_id, count, (size or 0) + count * ROW_BYTES, bool(is_told))
        for device_id, count, size, is_told in rows
    ]


def counts(connection: SqlConnection) -> dict[str, int]:
    """Returns the rows of each table."""
    found = {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - constants
        for table in _LISTED
    }
    return {**found, "audit": audit_chain.count(connection)}


def _equal(wanted: dict[str, str | None]) -> tuple[list[str], list[Any]]:
    given = {column: value for column, value in wanted.items() if value is not None}
    return ["1 = 1", *(f"{column} = ?" for column in given)], list(given.values())
