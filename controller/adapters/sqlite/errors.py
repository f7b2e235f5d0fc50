"""Classifies and describes failures of SQLite: transient, or caused by the data of one caller."""

import sqlite3
from typing import Final

from controller.ports.errors import StoreError, StoreFullError

_PRIMARY: Final = 0xFF  # extended result codes carry the primary one in the lowest byte
_WORDS: Final = {
    sqlite3.SQLITE_FULL: "no room left",
    sqlite3.SQLITE_IOERR: "reading or writing the file failed",
    sqlite3.SQLITE_BUSY: "locked by another process",
    sqlite3.SQLITE_LOCKED: "locked by another process",
    sqlite3.SQLITE_READONLY: "not writable",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_PERM: "access denied",
    sqlite3.SQLITE_PROTOCOL: "locked by another process",
    sqlite3.SQLITE_SCHEMA: "changed by another process",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "not a database",
}
# After these the open connection is as good as before; after any other, a new one may see what this one cannot.
_CONNECTION_FINE: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def _code(error: BaseException) -> int:
    """Returns the primary result code; -1 for errors of the Python module itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else int(code) & _PRIMARY


def passes_by_waiting(error: BaseException) -> bool:
    """Whether the file or the machine is the cause, not the data."""
    if isinstance(error, MemoryError):  # the sqlite3 module raises it for SQLITE_NOMEM
        return True
    return isinstance(error, sqlite3.Error) and _code(error) in _WORDS


def needs_new_connection(error: BaseException) -> bool:
    """Whether a retry needs a new connection."""
    return _code(error) not in _CONNECTION_FINE


def words(error: BaseException) -> str:
    """Returns the text for the operator, with SQLite's message in brackets."""
    said = _WORDS.get(_code(error))
    if said is None:
        return f"{type(error).__name__}: {error}"
    name = getattr(error, "sqlite_errorname", "")
    return f"{said} ({name}: {error})"


def as_store_error(error: BaseException, doing: str) -> StoreError:
    """Returns the port's error; raise it `from` the failure."""
    kind = StoreFullError if _code(error) == sqlite3.SQLITE_FULL else StoreError
    return kind(f"{doing}: {words(error)}")
