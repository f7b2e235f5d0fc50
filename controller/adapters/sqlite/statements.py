"""Statements and rows of a commit, prepared before the writer takes it."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from controller.adapters.sqlite import codec, guard_state
from controller.adapters.sqlite.audit_chain import AuditRow, append
from controller.adapters.sqlite.containment_state import user_rows
from controller.adapters.sqlite.dead_letters import DeadLetterIndex
from controller.domain.device import REPORT_FIELDS
from controller.ports.store import DeadLetter, StoreWrites

MAX_DEAD_TEXT: Final = 1024  # characters of a rejected message's topic and detail
_BYTES_PER_ROW: Final = 64  # size of a row besides its texts

SqlRow = tuple[Any, ...]


def _upsert(table: str, columns: tuple[str, ...], key: str) -> str:
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    # Names are constants of this package; every value is bound.
    return f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changes}"  # noqa: S608


_DEVICE: Final = _upsert("devices", codec.DEVICE_COLUMNS, "device_id")
_TOLD: Final = ", ".join(f"{name} = ?" for name in REPORT_FIELDS)
_SEEN: Final = f"UPDATE devices SET stale = 0, last_seen = ?, {_TOLD} WHERE device_id = ?"  # noqa: S608 - constants
_REPORT: Final = _upsert("reports", codec.REPORT_COLUMNS, "device_id")
# An effect that is requested twice is the same effect.
_EFFECT: Final = "INSERT INTO outbox (effect_id, kind, body) VALUES (?, ?, ?) ON CONFLICT (effect_id) DO NOTHING"
_DONE: Final = "DELETE FROM outbox WHERE effect_id = ?"
_COMMAND: Final = _upsert("commands", ("command_id", "device_id", "state", "updated_at", "body"), "command_id")
# Numbers come from the index in memory; a number that another process used must not fail the commit.
_DEAD: Final = "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_DEAD_GONE: Final = "DELETE FROM dead_letters WHERE seq = ?"


@dataclass(frozen=True, slots=True)
class WriteJob:
    """One caller's part of a transaction; `run` is called in the writer thread, again if the transaction failed.

    `rows` and `size` (approximate bytes) count towards the limits of a transaction and of the queue.
    """

    run: Callable[[sqlite3.Connection], object]
    rows: int = 1
    size: int = _BYTES_PER_ROW


def work_of(writes: StoreWrites, book: DeadLetterIndex, payload_bytes: int) -> WriteJob:
    """Returns the work of `writes`, with a device's rows in the right order.

    Raises:
        StoreError: a value cannot be stored.
    """
    audit = [
        AuditRow(at, one.kind.value, one.device_id, one.actor, one.case_id, one.alert, codec.dump_detail(one.detail))
        for at, one in writes.audit
    ]
    chained = [(line, line.body) for line in audit]
    batches: tuple[tuple[str, list[SqlRow]], ...] = (
        (_DEVICE, [codec.device_row(device) for device in writes.devices]),
        (_SEEN, [codec.contact_row(device) for device in writes.seen]),
        (_REPORT, [codec.report_row(report.device, report.body) for report in writes.reports]),
        (_EFFECT, [codec.effect_row(effect) for effect in writes.effects]),
        (_DONE, [(effect_id,) for effect_id in writes.done]),
        (_COMMAND, [codec.command_row(command) for command in writes.commands]),
        *guard_state.batches(writes),
        *_dead(writes.dead, book, payload_bytes),
        *user_rows(writes.users),
    )
    wanted = tuple((statement, rows) for statement, rows in batches if rows)

    def run(connection: sqlite3.Connection) -> None:
        for statement, rows in wanted:
            connection.executemany(statement, rows)
        if chained:
            append(connection, chained)

    everything: list[Sequence[SqlRow]] = [audit, *(rows for _, rows in wanted)]
    return WriteJob(run, sum(map(len, everything)), _size(chain.from_iterable(everything)))


def _dead(
    letters: tuple[DeadLetter, ...], book: DeadLetterIndex, payload_bytes: int
) -> tuple[tuple[str, list[SqlRow]], ...]:
    rows: list[SqlRow] = []
    gone: list[SqlRow] = []
    for one in letters:
        seq, out = book.add(one.device_id)
        topic, detail = one.topic[:MAX_DEAD_TEXT], one.detail[:MAX_DEAD_TEXT]
        rows.append((seq, one.at, one.device_id, topic, one.reason, detail, one.size, one.payload[:payload_bytes]))
        gone += [(number,) for number in out]
    return (_DEAD, rows), (_DEAD_GONE, gone)


def _size(rows: Iterable[SqlRow]) -> int:
    return sum(_BYTES_PER_ROW + sum(len(value) for value in row if isinstance(value, str | bytes)) for row in rows)
