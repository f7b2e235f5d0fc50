"""Statements and rows of a commit, prepared before the writer takes it."""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Final

from controller.adapters.sql import codec
from controller.adapters.sql.audit_chain import audit_rows
from controller.adapters.sql.connection import WriteJob, size_of
from controller.adapters.sql.statements import LETTER_COLUMNS, Batch, SqlRow, common_batches, letter_row, upsert
from controller.adapters.sqlite.audit_chain import append
from controller.adapters.sqlite.dead_letters import DeadLetterIndex
from controller.domain.device import REPORT_FIELDS
from controller.ports.store import DeadLetter, StoreWrites

DEVICE_COLUMNS: Final = (*codec.DEVICE_COLUMNS, "deadline_at", "waits_in")
_DEVICE: Final = upsert("devices", DEVICE_COLUMNS, "device_id")
_TOLD: Final = ", ".join(f"{name} = ?" for name in REPORT_FIELDS)
_SEEN: Final = f"UPDATE devices SET last_seen = ?, {_TOLD} WHERE device_id = ?"  # noqa: S608 - constants
_REPORT: Final = upsert("reports", codec.REPORT_COLUMNS, "device_id")
# An effect that is requested twice is the same effect.
_EFFECT: Final = "INSERT INTO outbox (effect_id, kind, body) VALUES (?, ?, ?) ON CONFLICT (effect_id) DO NOTHING"
# Numbers come from the index in memory; a number that another process used must not fail the commit.
_DEAD: Final = upsert("dead_letters", ("seq", *LETTER_COLUMNS), "seq")
_DEAD_GONE: Final = "DELETE FROM dead_letters WHERE seq = ?"
_DONE: Final = "DELETE FROM outbox WHERE effect_id = ?"


def work_of(writes: StoreWrites, book: DeadLetterIndex, payload_bytes: int) -> WriteJob:
    """Returns the work of `writes`, with a device's rows in the right order.

    Raises:
        StoreError: a value cannot be stored.
    """
    chained = audit_rows(writes)
    deadlines, waits_in = writes.deadlines, writes.waits_in
    batches: tuple[Batch, ...] = (
        (
            _DEVICE,
            [
                (*codec.device_row(one), deadlines.get(one.device_id), waits_in.get(one.device_id))
                for one in writes.devices
            ],
        ),
        (_SEEN, [codec.contact_row(device) for device in writes.seen]),
        (_REPORT, [codec.report_row(report.device, report.body) for report in writes.reports]),
        (_EFFECT, [codec.effect_row(effect) for effect in writes.effects]),
        (_DONE, [(effect_id,) for effect_id in writes.done]),
        *common_batches(writes),
        *_dead(writes.dead, book, payload_bytes),
    )
    wanted = tuple((statement, rows) for statement, rows in batches if rows)

    def run(connection: sqlite3.Connection) -> None:
        for statement, rows in wanted:
            connection.executemany(statement, rows)
        if chained:
            append(connection, chained)

    everything: list[Sequence[SqlRow]] = [[line for line, _ in chained], *(rows for _, rows in wanted)]
    return WriteJob(run, sum(map(len, everything)), size_of(chain.from_iterable(everything)))


def _dead(letters: Sequence[DeadLetter], book: DeadLetterIndex, payload_bytes: int) -> tuple[Batch, ...]:
    rows: list[SqlRow] = []
    gone: list[SqlRow] = []
    for one in letters:
        seq, out = book.add(one.device_id)
        rows.append((seq, *letter_row(one, payload_bytes)))
        gone += [(number,) for number in out]
    return (_DEAD, rows), (_DEAD_GONE, gone)
