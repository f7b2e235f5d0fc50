"""Connections with their time limits, and the interface that `controller.adapters.sql` works with."""

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg import RawCursor
from psycopg.pq import TransactionStatus

from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.sql.connection import SqlCursor

_STATEMENTS: Final = 512  # texts whose placeholders are translated once
_AT_ONCE: Final = 2000  # rows fetched at once of a long result
LOCK_TIMEOUT: Final = "5s"
_SETTINGS: Final = (
    "SET statement_timeout = '{statement}'; SET lock_timeout = '{lock}';"
    " SET idle_in_transaction_session_timeout = '{idle}'; SET timezone = 'UTC';"
    " SET standard_conforming_strings = on; SET default_transaction_read_only = {read_only};"
    " SET client_connection_check_interval = '2s'"  # a statement of a machine that is gone ends
)


@lru_cache(_STATEMENTS)
def numbered(sql: str) -> str:
    """Returns the statement with `$1`, `$2` ... for each `?`; no statement of this project has one in a text."""
    first, *rest = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


def _plain(parameters: Sequence[Any]) -> list[Any]:
    return [_plain_value(value) for value in parameters]


def _plain_value(value: Any) -> Any:
    """Single truth values go to columns of 0 and 1, as on SQLite. Texts have no NUL here.

    A client at the broker may have one in its id or a topic, and must not keep what is stored about it from being
    stored; from elsewhere none comes.
    """
    if isinstance(value, bool):
        return int(value)
    return value.replace("\x00", "\ufffd") if isinstance(value, str) and "\x00" in value else value


class PostgresConnection:
    """A connection that takes statements with `?`; each statement is a transaction of its own unless one was begun."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> SqlCursor:
        """Executes a statement; see `_plain_value`."""
        cursor: RawCursor[Any] = RawCursor(self.raw)
        cursor.execute(numbered(sql), _plain(parameters) or None)
        return cursor

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> SqlCursor:
        cursor: RawCursor[Any] = RawCursor(self.raw)
        rows = [_plain(row) for row in parameters]
        if rows:
            cursor.executemany(numbered(sql), rows)
        return cursor

    def stream(self, sql: str, parameters: Sequence[Any] = (), *, name: str = "long") -> Iterator[tuple[Any, ...]]:
        """Yields the rows of a long result without holding all of them; in a transaction, `name` is unique there."""
        with psycopg.RawServerCursor(self.raw, name) as cursor:
            cursor.itersize = _AT_ONCE
            cursor.execute(numbered(sql), _plain(parameters) or None)
            yield from cursor

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """One moment for all statements in the block; it may take as long as it takes."""
        self.raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0")
        try:
            yield
        finally:
            if self.raw.info.transaction_status is not TransactionStatus.UNKNOWN:
                self.raw.execute("ROLLBACK")

    @property
    def is_lost(self) -> bool:
        """Whether a new connection is needed."""
        return self.raw.closed or self.raw.info.transaction_status is TransactionStatus.UNKNOWN

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self.raw.close()

    def cut(self) -> None:
        """Ends the connection under a thread that waits for an answer."""
        with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self.raw.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


def session_settings(*, read_only: bool) -> str:
    """Returns the statements that begin a session; a writing transaction without work ends within a lease."""
    limits = {"statement": "30s", "lock": LOCK_TIMEOUT, "idle": "60s" if read_only else "3s"}
    return _SETTINGS.format(**limits, read_only="on" if read_only else "off")


def connect(address: PostgresAddress, name: str, *, read_only: bool = False) -> PostgresConnection:
    """Opens a connection; `name` is what the server lists it as.

    Raises:
        psycopg.Error: it cannot be opened.
    """
    raw = psycopg.connect(**address.with_name(name), autocommit=True)  # type: ignore[arg-type]  # all are texts
    try:
        raw.execute(session_settings(read_only=read_only))
    except BaseException:
        raw.close()
        raise
    return PostgresConnection(raw)
