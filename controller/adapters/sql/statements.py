"""Rows of a commit that both engines write with the same statements."""

from typing import Any, Final

from controller.adapters.sql import codec, guard_state
from controller.adapters.sql.containment_state import user_rows
from controller.ports.store import DeadLetter, StoreWrites

MAX_DEAD_TEXT: Final = 1024  # characters of a rejected message's topic and detail

SqlRow = tuple[Any, ...]
Batch = tuple[str, list[SqlRow]]  # a statement and the rows for which it is executed, in order


def upsert(table: str, columns: tuple[str, ...], key: str) -> str:
    """Returns the statement that inserts a row, or replaces the one with the same key."""
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    # Names are constants of this package; every value is bound.
    return f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changes}"  # noqa: S608


_COMMAND: Final = upsert("commands", ("command_id", "device_id", "state", "updated_at", "body"), "command_id")
LETTER_COLUMNS: Final = ("at", "device_id", "topic", "reason", "detail", "size", "payload")


def common_batches(writes: StoreWrites) -> tuple[Batch, ...]:
    """Returns commands, users and what belongs to guards, in the order to execute it.

    Raises:
        StoreError: a value cannot be stored.
    """
    return (
        (_COMMAND, [codec.command_row(command) for command in writes.commands]),
        *guard_state.batches(writes),
        *user_rows(writes.users),
    )


def letter_row(one: DeadLetter, payload_bytes: int) -> SqlRow:
    """Returns a rejected message in the order of `LETTER_COLUMNS`."""
    topic, detail = one.topic[:MAX_DEAD_TEXT], one.detail[:MAX_DEAD_TEXT]
    return one.at, one.device_id, topic, one.reason, detail, one.size, one.payload[:payload_bytes]
