"""What a commit writes: rows of many callers as arrays, each device once, in the order of ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from controller.adapters.postgres.audit_chain import WritingConnection
from controller.adapters.sql import codec
from controller.adapters.sql.audit_chain import AuditRow, audit_rows
from controller.adapters.sql.connection import WriteJob, size_of
from controller.adapters.sql.dead_letters import DeadLetterIndex
from controller.adapters.sql.statements import Batch, SqlRow, common_batches
from controller.domain.device import REPORT_FIELDS, Device
from controller.ports.leases import bucket_of
from controller.ports.store import StoredReport, StoreWrites

_FLOATS: Final = frozenset({"last_seen", "reported_at", "first_seen", "at"})
_TYPES: Final = {
    "bucket": "int2", "first_seen": "float8", "last_seen": "float8", "online": "bool", "stale": "bool",
    "report_seq": "int8", "reported_at": "float8", "accepted": "int8", "satisfied": "int8", "at": "float8",
    "body": "bytea", "by_report": "bool",
}  # fmt: skip

DEVICE_COLUMNS: Final = ("device_id", "bucket", "first_seen", "online", "level", "state")
CONTACT_COLUMNS: Final = ("device_id", "bucket", "last_seen", "stale", *REPORT_FIELDS)
REPORT_COLUMNS: Final = ("device_id", "at", "body")
_ACCEPTED: Final = CONTACT_COLUMNS.index("accepted")
_REPORTED_AT: Final = CONTACT_COLUMNS.index("reported_at")
_LAST_SEEN: Final = CONTACT_COLUMNS.index("last_seen")
_STALE: Final = CONTACT_COLUMNS.index("stale")


def _arrays(columns: Sequence[str]) -> str:
    """`unnest` of one array for each column."""
    arrays = ", ".join(f"?::{_TYPES.get(name, 'text')}[]" for name in columns)
    return f"unnest({arrays}) AS new ({', '.join(columns)})"


def _upsert(table: str, columns: Sequence[str], *, versioned: bool) -> str:
    changes = [f"{name} = excluded.{name}" for name in columns if name not in {"device_id", "bucket"}]
    version, one = (", version", ", 1") if versioned else ("", "")
    if versioned:
        changes.append(f"version = {table}.version + 1")
    # Names are constants of this module; every value is bound.
    return (
        f"INSERT INTO {table} ({', '.join(columns)}{version}) SELECT {', '.join(columns)}{one} FROM {_arrays(columns)}"  # noqa: S608
        f" ON CONFLICT (device_id) DO UPDATE SET {', '.join(changes)}"
    )


_DEVICES: Final = _upsert("devices", DEVICE_COLUMNS, versioned=True)
_CONTACTS: Final = _upsert("contacts", CONTACT_COLUMNS, versioned=True)
_REPORTS: Final = _upsert("reports", REPORT_COLUMNS, versioned=False)
# A contact changes no decision: the version stays. A report that is older than the stored state leaves the row.
_TOUCHED: Final = (
    "UPDATE contacts SET stale = contacts.stale AND NOT new.by_report, last_seen = CASE WHEN new.by_report"  # noqa: S608 - constants
    " THEN greatest(contacts.last_seen, new.last_seen) ELSE new.last_seen END,"
    f" {', '.join(f'{name} = new.{name}' for name in REPORT_FIELDS)} FROM {_arrays((*CONTACT_COLUMNS, 'by_report'))}"
    " WHERE contacts.device_id = new.device_id AND (NOT new.by_report OR new.accepted > contacts.accepted)"
)
_DONE: Final = "DELETE FROM outbox WHERE effect_id = ANY(?::text[])"
# An effect that is requested twice is the same effect.
_EFFECTS: Final = (
    "INSERT INTO outbox (effect_id, bucket, device_id, kind, body) SELECT effect_id, bucket, device_id, kind, body"
    " FROM unnest(?::text[], ?::int2[], ?::text[], ?::text[], ?::text[]) WITH ORDINALITY"
    " AS new (effect_id, bucket, device_id, kind, body, place) ORDER BY place ON CONFLICT (effect_id) DO NOTHING"
)
HANDED_OVER: Final = "cordon_outbox"  # channel: a bucket with effects that another controller decided
_HAND_OVER: Final = f"SELECT pg_notify('{HANDED_OVER}', bucket::text) FROM unnest(?::int2[]) AS foreign_ones (bucket)"  # noqa: S608 - constants


def device_row(device: Device) -> SqlRow:
    """Returns a device in the order of `DEVICE_COLUMNS`."""
    device_id, first_seen, _, online, _, level, state, *_ = codec.device_row(device)
    return device_id, bucket_of(device_id), first_seen, online, level, state


def contact_row(device: Device, *, stale: bool) -> SqlRow:
    """Returns the last contact of a device in the order of `CONTACT_COLUMNS`."""
    last_seen, *told, device_id = codec.contact_row(device)
    return device_id, bucket_of(device_id), last_seen, stale, *told


@dataclass(frozen=True, slots=True)
class CommitRows:
    """The rows of one caller's `StoreWrites`, in the order of the fields of that class."""

    devices: list[SqlRow]
    known: list[SqlRow]  # contacts of `devices`
    seen: list[SqlRow]
    reported: list[tuple[SqlRow, SqlRow]]  # contact and report
    effects: list[SqlRow]
    done: tuple[str, ...]
    others: tuple[Batch, ...]
    audit: list[tuple[AuditRow, bytes]]


@dataclass(frozen=True, slots=True)
class RowsJob(WriteJob):
    """Work that may be merged with that of other callers."""

    content: CommitRows | None = None


def work_of(writes: StoreWrites, book: DeadLetterIndex, payload_bytes: int) -> RowsJob:
    """Returns the work of `writes`.

    Raises:
        StoreError: a value cannot be stored.
    """
    rows = CommitRows(
        [device_row(device) for device in writes.devices],
        [contact_row(device, stale=device.stale) for device in writes.devices],
        [contact_row(device, stale=False) for device in writes.seen],
        [(_reported(one), (one.device.device_id, one.device.reported_at, one.body)) for one in writes.reports],
        [
            (effect.effect_id, bucket_of(effect.device_id), effect.device_id, *codec.effect_row(effect)[1:])
            for effect in writes.effects
        ],
        writes.done,
        tuple(batch for batch in common_batches(writes, book, payload_bytes) if batch[1]),
        audit_rows(writes),
    )
    everything: list[Sequence[SqlRow]] = [
        rows.devices,
        rows.seen,
        [one for _, one in rows.reported],
        rows.effects,
        [row for row, _ in rows.audit],
    ]
    everything += [batch for _, batch in rows.others]
    size = size_of(chain.from_iterable(everything))
    return RowsJob(lambda connection: write(connection, [rows]), sum(map(len, everything)) + len(rows.done), size, rows)


def _reported(report: StoredReport) -> SqlRow:
    row = list(contact_row(report.device, stale=False))
    row[_LAST_SEEN] = report.device.reported_at
    return tuple(row)


def write(connection: WritingConnection, group: Sequence[CommitRows]) -> None:
    """Writes the rows of callers in a pipeline, as if one after the other."""
    devices = _last(row for rows in group for row in rows.devices)
    known, touched = _contacts(group)
    reports = _last(report for rows in group for _, report in rows.reported)
    effects, done = _effects(group)
    audit = [line for rows in group for line in rows.audit]
    with connection.raw.pipeline():
        for statement, columns, found in (
            (_DEVICES, DEVICE_COLUMNS, devices),
            (_CONTACTS, CONTACT_COLUMNS, known),
            (_TOUCHED, (*CONTACT_COLUMNS, "by_report"), touched),
            (_REPORTS, REPORT_COLUMNS, reports),
        ):
            if found:
                connection.execute(statement, _columns(columns, found))
        if done:
            connection.execute(_DONE, (done,))
        if effects:
            connection.execute(_EFFECTS, [list(column) for column in zip(*effects, strict=True)])
            foreign = {bucket for _, bucket, *_ in effects} - connection.held
            if foreign:
                connection.execute(_HAND_OVER, (sorted(foreign),))
        if audit:
            connection.append(audit)
        for statement, batch in (one for rows in group for one in rows.others):
            for row in batch:
                connection.execute(statement, row)


def _last(rows: Iterable[SqlRow]) -> list[SqlRow]:
    """Returns the last row of each device, sorted: writers that lock in one order cannot deadlock."""
    return sorted({row[0]: row for row in rows}.values(), key=lambda row: row[0])


def _contacts(group: Sequence[CommitRows]) -> tuple[list[SqlRow], list[SqlRow]]:
    """Returns the contacts of decided devices, and those of others with whether a report is all that is new."""
    known: dict[str, SqlRow] = {}
    touched: dict[str, tuple[SqlRow, bool]] = {}
    for rows in group:
        for row in rows.known:
            known[row[0]] = row
            touched.pop(row[0], None)
        for row in rows.seen:
            if row[0] in known:
                known[row[0]] = (*row[:_STALE], known[row[0]][_STALE], *row[_STALE + 1 :])
            else:
                touched[row[0]] = (row, False)
        for row, _ in rows.reported:
            device_id = row[0]
            if device_id in known:
                known[device_id] = _later(known[device_id], row)
            elif device_id in touched:
                before, by_report = touched[device_id]
                touched[device_id] = (_later(before, row), by_report)
            else:
                touched[device_id] = (row, True)
    return (
        [known[device_id] for device_id in sorted(known)],
        [(*touched[device_id][0], touched[device_id][1]) for device_id in sorted(touched)],
    )


def _later(before: SqlRow, reported: SqlRow) -> SqlRow:
    """Returns the state after a report: of the two, the one with more accepted reports is the later."""
    if reported[_ACCEPTED] <= before[_ACCEPTED]:
        return before
    row = list(reported)
    row[_LAST_SEEN] = max(before[_LAST_SEEN], reported[_REPORTED_AT])
    return tuple(row)


def _effects(group: Sequence[CommitRows]) -> tuple[list[SqlRow], list[str]]:
    """Returns what is pending after all callers, and what is to delete before that is inserted."""
    pending: dict[str, SqlRow] = {}
    done: dict[str, None] = {}
    for rows in group:
        for row in rows.effects:
            pending.setdefault(row[0], row)
        for effect_id in rows.done:
            pending.pop(effect_id, None)
            done[effect_id] = None
    return list(pending.values()), list(done)


def _columns(names: Sequence[str], rows: Sequence[SqlRow]) -> list[list[Any]]:
    """Returns a list for each column; numbers of one column are of one type."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return [
        list(map(float, column)) if name in _FLOATS else column for name, column in zip(names, columns, strict=True)
    ]
