"""Creates, migrates and checks the tables.

Every change of a table, or of the JSON in a column, is a new step in `migrations`. `fleet.schema_level` says how far
the tables were extended, `fleet.write_level` in which form rows are written: who does not know that form is refused.
New columns and tables come first (`expand`), while older controllers still run; the form changes when every
controller knows it (`raise_write_level`); what nobody needs any more goes after that (`contract`).
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import psycopg

from controller.adapters.postgres.connection import PostgresConnection
from controller.adapters.postgres.errors import as_store_error
from controller.adapters.postgres.migrations import STEPS, Step
from controller.ports.errors import StoreError

OLDEST_SERVER: Final = 150_000  # PostgreSQL 15
LOCK: Final = 0x43_4F_52_44  # advisory lock of this transaction: who migrates or registers does so alone
ALONE: Final = LOCK + 1  # the same, for who checks something in the transaction that changes it
_LOCK_TIMEOUT: Final = "2s"
_ATTEMPTS: Final = 5
_PAUSE: Final = 0.5  # seconds between attempts to lock
_LOCKED: Final = "55P03"


def prepare(connection: PostgresConnection, place: str, steps: Sequence[Step] = STEPS) -> None:
    """Creates the tables in an empty database, or migrates them to this version.

    Raises:
        StoreError: a server or database that cannot be used, one of another program, or of a newer version.
        psycopg.Error: the server failed.
    """
    check_server(connection, place)
    for attempt in range(_ATTEMPTS):
        try:
            _expand(connection, place, steps)
        except psycopg.Error as error:
            connection.raw.execute("ROLLBACK")
            if error.sqlstate != _LOCKED or attempt == _ATTEMPTS - 1:
                raise as_store_error(error, f"cannot prepare the store {place}") from error
            time.sleep(_PAUSE)
        except BaseException:
            connection.raw.execute("ROLLBACK")
            raise
        else:
            return


def check_server(connection: PostgresConnection, place: str) -> None:
    """Refuses servers that are too old, that lose commits, or whose text is not UTF-8.

    Raises:
        StoreError: with the reason.
    """
    version = connection.raw.info.server_version
    if version < OLDEST_SERVER:
        raise StoreError(f"{place}: PostgreSQL {version // 10_000} is too old; Cordon needs 15 or later")
    if (encoding := _show(connection, "server_encoding")) != "UTF8":
        raise StoreError(f"{place}: the database has the encoding {encoding}: create one with ENCODING 'UTF8'")
    if _show(connection, "fsync") != "on":
        raise StoreError(f"{place}: the server has fsync = off: it would lose reports that were acknowledged")
    if _show(connection, "synchronous_commit") in {"off", "local"}:
        connection.raw.execute("SET synchronous_commit = on")


def check_level(connection: PostgresConnection, place: str, steps: Sequence[Step] = STEPS) -> None:
    """Refuses tables that this version cannot work with, and changes nothing.

    Raises:
        StoreError: no store, one of another program, of an older or of a newer version.
    """
    schema_level, write_level = _levels(connection, place)
    if schema_level == 0:
        raise StoreError(f"{place} has no store of Cordon's yet: `cordon serve` creates it")
    if write_level > len(steps):
        raise _newer(place, write_level, len(steps))
    if schema_level < len(steps):
        raise StoreError(f"{place} was written by an older version of Cordon: `cordon serve` of this one migrates it")


def raise_write_level(connection: PostgresConnection, steps: Sequence[Step] = STEPS) -> None:
    """Writes in the newest form from now on, if every controller that writes knows it; in the caller's transaction."""
    known = connection.execute("SELECT min(level) FROM writers WHERE NOT fenced").fetchone()[0]
    level = min(len(steps), known or 0)
    (before,) = connection.execute("SELECT write_level FROM fleet FOR UPDATE").fetchone()
    for step in steps[before:level]:
        for statement in step.contract:
            connection.execute(statement)
    if level > before:
        connection.execute("UPDATE fleet SET write_level = ?", (level,))


def _expand(connection: PostgresConnection, place: str, steps: Sequence[Step]) -> None:
    connection.raw.execute(f"BEGIN; SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'; SET LOCAL statement_timeout = 0")
    connection.execute("SELECT pg_advisory_xact_lock(?)", (LOCK,))
    schema_level, write_level = _levels(connection, place)
    if write_level > len(steps):
        raise _newer(place, write_level, len(steps))
    for step in steps[schema_level:]:
        for statement in step.expand:
            connection.execute(statement)
    if schema_level < len(steps):
        connection.execute("UPDATE fleet SET schema_level = ?", (len(steps),))
    connection.raw.execute("COMMIT")


def _levels(connection: PostgresConnection, place: str) -> tuple[int, int]:
    """Returns how far the tables are, and the form of their rows; zeros for an empty database."""
    tables = {
        name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    }
    if "fleet" not in tables:
        if tables:
            raise StoreError(
                f"{place} has tables of another program; Cordon leaves it alone: give it a database of its own"
            )
        return 0, 0
    try:
        found: tuple[Any, ...] = connection.execute("SELECT schema_level, write_level FROM fleet").fetchone()
    except psycopg.errors.UndefinedColumn:
        raise StoreError(f"{place} has a table `fleet` of another program; Cordon leaves it alone") from None
    return int(found[0]), int(found[1])


def _newer(place: str, level: int, known: int) -> StoreError:
    return StoreError(
        f"{place} was written by a newer version of Cordon (form {level}, this one knows {known}): start that version,"
        " or go back to a copy made before the update"
    )


def _show(connection: PostgresConnection, name: str) -> str:
    return str(connection.execute("SELECT current_setting(?)", (name,)).fetchone()[0])
