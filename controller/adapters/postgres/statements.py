"""What a commit writes: rows of many callers as arrays, each device once, in the order of ids."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from controller.adapters.postgres.arrays import arrays, unnest
from controller.adapters.postgres.audit_chain import WritingConnection
from controller.adapters.postgres.contacts import (
    CONTACT_COLUMNS,
    Contact,
    Contacts,
    Versions,
    checked_row,
    contact_row,
    reported_row,
)
from controller.adapters.sql import codec
from controller.adapters.sql.audit_chain import AuditRow, audit_rows
from controller.adapters.sql.connection import SqlCursor, WriteJob, size_of
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sql.statements import LETTER_COLUMNS, Batch, SqlRow, common_batches, letter_row
from controller.domain.device import REPORT_FIELDS, Device
from controller.domain.guards.blast_radius import RadiusCheck
from controller.ports.errors import ConflictError
from controller.ports.leases import bucket_of
from controller.ports.store import DeadLetter, StoreWrites

DEVICE_COLUMNS: Final = ("device_id", "bucket", "first_seen", "online", "level", "state", "deadline_at", "waits_in")
REPORT_COLUMNS: Final = ("device_id", "at", "body")
_TOUCHED_COLUMNS: Final = (*CONTACT_COLUMNS, "expected", "version", "by_report")
_ADDED_COLUMNS: Final = (*CONTACT_COLUMNS, "version", "bucket")


def _insert(table: str, columns: Sequence[str]) -> str:
    # Names are constants of this module; every value is bound.
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns)} FROM {unnest(columns)}"  # noqa: S608


def _upsert(table: str, columns: Sequence[str]) -> str:
    changes = [f"{name} = excluded.{name}" for name in columns if name not in {"device_id", "bucket"}]
    return f"{_insert(table, columns)} ON CONFLICT (device_id) DO UPDATE SET {', '.join(changes)}"


# Whether a device is new is found at its contact.
_NEW_DEVICES: Final = f"{_insert('devices', DEVICE_COLUMNS)} ON CONFLICT (device_id) DO NOTHING"
_DEVICES: Final = (
    f"UPDATE devices SET {', '.join(f'{name} = new.{name}' for name in DEVICE_COLUMNS[2:])}"  # noqa: S608 - constants
    f" FROM {unnest(DEVICE_COLUMNS)} WHERE devices.device_id = new.device_id"
)
_ANY_DEVICES: Final = _upsert("devices", DEVICE_COLUMNS)
_NEW_CONTACTS: Final = (
    f"{_insert('contacts', _ADDED_COLUMNS)} ON CONFLICT (device_id) DO NOTHING RETURNING contacts.device_id"
)
_ANY_CONTACTS: Final = _upsert("contacts", _ADDED_COLUMNS).replace("= excluded.version", "= contacts.version + 1")
# A row with fewer reports than the stored one comes from who has not seen the last: its version is no longer right, or
# (unchecked) it is older than the stored state. A contact leaves the version.
_CONTACTS: Final = (
    "UPDATE contacts SET version = coalesce(new.version, contacts.version),"  # noqa: S608 - constants
    " stale = coalesce(new.stale, contacts.stale), last_seen = CASE WHEN new.by_report"
    " THEN greatest(contacts.last_seen, new.last_seen) ELSE new.last_seen END,"
    f" {', '.join(f'{name} = new.{name}' for name in REPORT_FIELDS)} FROM {unnest(_TOUCHED_COLUMNS)}"
    " WHERE contacts.device_id = new.device_id AND CASE WHEN new.expected IS NULL"
    " THEN NOT new.by_report OR new.accepted > contacts.accepted"
    # Of two reports that were counted by the same number in two memories, neither replaces the other.
    " ELSE contacts.version = new.expected AND (new.accepted > contacts.accepted OR new.accepted = contacts.accepted"
    " AND new.report_seq = contacts.report_seq) END RETURNING contacts.device_id"
)
_REPORTS: Final = _upsert("reports", REPORT_COLUMNS)
_LOCK: Final = "SELECT 1 FROM contacts WHERE device_id = ANY(?::text[]) ORDER BY device_id FOR NO KEY UPDATE"
_GUARDS: Final = "UPDATE fleet SET guard_version = ? WHERE guard_version = ?"
# Runs after `_GUARDS` has locked the row of the fleet: it sees what every controller before has stored.
_RADIUS: Final = (
    "SELECT (SELECT count(*) FROM charges WHERE ledger = ? AND at > ?),"
    " EXISTS (SELECT 1 FROM devices WHERE waits_in = ? AND device_id <> ALL(?::text[]))"
)
RAISE_BOOKS: Final = "UPDATE fleet SET books_version = books_version + 1"
_DEAD: Final = f"INSERT INTO dead_letters ({', '.join(LETTER_COLUMNS)}) VALUES ({', '.join('?' * len(LETTER_COLUMNS))})"  # noqa: S608 - constants
_DEAD_OF_DEVICE: Final = (
    "WITH mine AS MATERIALIZED (SELECT seq FROM dead_letters WHERE device_id = ? ORDER BY seq DESC OFFSET ?)"
    " DELETE FROM dead_letters WHERE seq IN (SELECT seq FROM mine)"
)
_DEAD_OF_ALL: Final = (
    "DELETE FROM dead_letters WHERE seq <= (SELECT seq FROM dead_letters ORDER BY seq DESC OFFSET ? LIMIT 1)"
)
_DONE: Final = "DELETE FROM outbox WHERE effect_id = ANY(?::text[])"
# An effect that is requested twice is the same effect.
_EFFECTS: Final = (
    "INSERT INTO outbox (effect_id, bucket, device_id, kind, body) SELECT effect_id, bucket, device_id, kind, body"
    " FROM unnest(?::text[], ?::int2[], ?::text[], ?::text[], ?::text[]) WITH ORDINALITY"
    " AS new (effect_id, bucket, device_id, kind, body, place) ORDER BY place ON CONFLICT (effect_id) DO NOTHING"
)
HANDED_OVER: Final = "cordon_outbox"  # channel: a device with effects that another controller decided
# What is said has a limit of 8,000 bytes, which no device id reaches that a message can come from.
_HAND_OVER: Final = f"SELECT pg_notify('{HANDED_OVER}', left(id, 1000)) FROM unnest(?::text[]) AS foreign_ones (id)"  # noqa: S608 - constants


def device_row(device: Device, deadline_at: float | None, waits_in: str | None) -> SqlRow:
    """Returns a device in the order of `DEVICE_COLUMNS`."""
    device_id, first_seen, _, online, _, level, state, *_ = codec.device_row(device)
    return device_id, bucket_of(device_id), first_seen, online, level, state, deadline_at, waits_in


@dataclass(frozen=True, slots=True)
class CommitRows:
    """The rows of one caller's `StoreWrites`, in the order of the fields of that class."""

    devices: list[SqlRow]
    known: list[SqlRow]  # contacts of `devices`
    seen: list[SqlRow]
    reported: list[SqlRow]  # contacts of `reports`, and of devices that are only checked
    reports: list[SqlRow]
    effects: list[SqlRow]
    done: tuple[str, ...]
    others: tuple[Batch, ...]
    audit: list[tuple[AuditRow, bytes]]
    versions: Versions
    guards_version: tuple[int, int] | None
    radius: tuple[RadiusCheck, ...]
    policy_epoch: int | None
    changes_books: bool


@dataclass(frozen=True, slots=True)
class RowsJob(WriteJob):
    """Work that may be merged with that of other callers."""

    alone: bool = False
    content: CommitRows | None = None


def work_of(writes: StoreWrites, options: StoreOptions) -> RowsJob:
    """Returns the work of `writes`.

    Raises:
        StoreError: a value cannot be stored.
    """
    deadlines, waits_in = writes.deadlines, writes.waits_in
    rows = CommitRows(
        [device_row(one, deadlines.get(one.device_id), waits_in.get(one.device_id)) for one in writes.devices],
        [contact_row(device, stale=device.stale) for device in writes.devices],
        [contact_row(device, stale=None) for device in writes.seen],
        [*(reported_row(one.device) for one in writes.reports), *map(checked_row, writes.checked)],
        [(one.device.device_id, one.device.reported_at, one.body) for one in writes.reports],
        [
            (effect.effect_id, bucket_of(effect.device_id), effect.device_id, *codec.effect_row(effect)[1:])
            for effect in writes.effects
        ],
        writes.done,
        tuple(batch for batch in (*common_batches(writes), *_dead(writes.dead, options)) if batch[1]),
        audit_rows(writes),
        dict(writes.versions),
        writes.guards_version,
        writes.radius,
        writes.policy_epoch,
        bool(writes.waivers or writes.requests) or writes.knowledge is not None,
    )
    everything: list[Sequence[SqlRow]] = [
        rows.devices,
        rows.seen,
        rows.reports,
        rows.reported[len(rows.reports) :],
        rows.effects,
        [row for row, _ in rows.audit],
    ]
    everything += [batch for _, batch in rows.others]
    size = size_of(chain.from_iterable(everything))
    number = sum(map(len, everything)) + len(rows.done)
    return RowsJob(lambda connection: write(connection, [rows]), number, size, content=rows)


def lock(connection: WritingConnection, group: Sequence[CommitRows]) -> None:
    """Locks the devices of callers in the order of ids, as `write` does, for callers that are written one by one."""
    found = {row[0] for rows in group for row in (*rows.known, *rows.seen, *rows.reported)}
    connection.execute(_LOCK, (sorted(found),))


def write(connection: WritingConnection, group: Sequence[CommitRows]) -> None:
    """Writes the rows of callers in a pipeline, as if one after the other.

    Raises:
        ConflictError: a caller decided on something that is no longer stored; the transaction has to be rolled back.
    """
    guards = _check_guards(group, connection.policy_epoch)
    contacts = Contacts()
    for rows in group:
        contacts.add(rows.known, rows.seen, rows.reported, rows.versions)
    effects, done = _effects(group)
    audit = [line for rows in group for line in rows.audit]
    with connection.raw.pipeline():
        missing = _write_devices(connection, group, contacts)
        _put(connection, _REPORTS, REPORT_COLUMNS, _last(row for rows in group for row in rows.reports))
        if done:
            connection.execute(_DONE, (done,))
        if effects:
            connection.execute(_EFFECTS, [list(column) for column in zip(*effects, strict=True)])
            foreign = {device_id for _, bucket, device_id, *_ in effects if bucket not in connection.held}
            if foreign:
                connection.execute(_HAND_OVER, (sorted(foreign),))
        if audit:
            connection.append(audit)
        for statement, batch in (one for rows in group for one in rows.others):
            for row in batch:
                connection.execute(statement, row)
        # The row that all controllers share comes last: it is locked for as short as can be.
        if any(rows.changes_books for rows in group):
            connection.execute(RAISE_BOOKS)
        guarded = None if guards is None else connection.execute(_GUARDS, (guards[1], guards[0]))
        rested = [
            (one, connection.execute(_RADIUS, (one.ledger, float(one.since), one.pool, sorted(one.held))))
            for one in _radius(group)
        ]
    changed = missing()
    are_other_guards = guarded is not None and guarded.rowcount == 0
    for check, found in rested:
        used, waits = found.fetchone()
        are_other_guards = are_other_guards or not check.holds(used, waits=waits)
    if changed or are_other_guards:
        raise ConflictError(changed, guards=are_other_guards)


def _check_guards(group: Sequence[CommitRows], policy_epoch: int) -> tuple[int, int] | None:
    """Returns the version of the guards before and after all callers, `None` if nobody decided by them.

    Raises:
        ConflictError: of two callers the second decided on another version than the first left, or policies of an
            earlier epoch were decided by.
    """
    found: tuple[int, int] | None = None
    for rows in group:
        if rows.policy_epoch is not None and rows.policy_epoch < policy_epoch:
            raise ConflictError(policies=True)
        if rows.guards_version is not None:
            before, after = rows.guards_version
            if found is not None and found[1] != before:
                raise ConflictError(guards=True)
            found = (before if found is None else found[0], after)
    return found


def _radius(group: Sequence[CommitRows]) -> Iterable[RadiusCheck]:
    """Returns what all callers took for granted, each pool once."""
    merged: dict[str, RadiusCheck] = {}
    for one in (one for rows in group for one in rows.radius):
        other = merged.get(one.pool, one)
        admitted, is_full = one.admitted or other.admitted, one.is_full or other.is_full
        merged[one.pool] = replace(one, admitted=admitted, is_full=is_full, held=one.held | other.held)
    return merged.values()


def _write_devices(
    connection: WritingConnection, group: Sequence[CommitRows], contacts: Contacts
) -> Callable[[], set[str]]:
    """Writes contacts, which locks the devices, then decided devices.

    Returns what tells, after the pipeline, the devices whose stored version is another than was decided on.
    """
    new: list[Contact] = []
    unchecked: list[Contact] = []
    others: list[Contact] = []
    for one in contacts.sorted():
        if one.is_decided and not one.expected:
            (unchecked if one.expected is None else new).append(one)
        else:
            others.append(one)
    written = [
        _put(connection, _CONTACTS, _TOUCHED_COLUMNS, [one.values for one in others]),
        _put(connection, _NEW_CONTACTS, _ADDED_COLUMNS, [_added(one) for one in new]),
    ]
    _put(connection, _ANY_CONTACTS, _ADDED_COLUMNS, [_added(one) for one in unchecked])
    devices = _last(row for rows in group for row in rows.devices)
    expected = {row[0]: contacts[row[0]].expected for row in devices}
    _put(connection, _NEW_DEVICES, DEVICE_COLUMNS, [row for row in devices if expected[row[0]] == 0])
    _put(connection, _ANY_DEVICES, DEVICE_COLUMNS, [row for row in devices if expected[row[0]] is None])
    _put(connection, _DEVICES, DEVICE_COLUMNS, [row for row in devices if expected[row[0]]])

    def missing() -> set[str]:
        checked = {one.row[0] for one in (*others, *new) if one.expected is not None}
        return checked.difference(row[0] for cursor in written if cursor is not None for row in cursor)

    return missing


def _added(contact: Contact) -> SqlRow:
    """Returns a contact in the order of `_ADDED_COLUMNS`."""
    version = 1 if contact.version is None else contact.version
    return (*contact.row, version, bucket_of(contact.row[0]))


def _put(
    connection: WritingConnection, statement: str, columns: Sequence[str], rows: Sequence[SqlRow]
) -> SqlCursor | None:
    return connection.execute(statement, arrays(columns, rows)) if rows else None


def _last(rows: Iterable[SqlRow]) -> list[SqlRow]:
    """Returns the last row of each device, in the order of ids."""
    return sorted({row[0]: row for row in rows}.values(), key=lambda row: row[0])


def _dead(letters: Sequence[DeadLetter], options: StoreOptions) -> tuple[Batch, ...]:
    """The oldest make room: first of the same device, then of all."""
    senders = [(sender, options.max_dead_letters_per_device) for sender in sorted({one.device_id for one in letters})]
    all_of_them = [(options.max_dead_letters,)] if letters else []
    rows = [letter_row(one, options.dead_payload_bytes) for one in letters]
    return (_DEAD, rows), (_DEAD_OF_DEVICE, list[SqlRow](senders)), (_DEAD_OF_ALL, list[SqlRow](all_of_them))


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
