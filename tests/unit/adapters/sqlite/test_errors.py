import sqlite3

import pytest

from controller.adapters.sqlite import errors
from controller.ports.errors import StoreError, StoreFullError


def _error(code: int, name: str, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("its own words")
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("code", "name", "words", "new_connection"),
    [
        (sqlite3.SQLITE_FULL, "SQLITE_FULL", "no room left (SQLITE_FULL: its own words)", False),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY_SNAPSHOT", "locked by another process (", False),
        (sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC", "reading or writing the file failed (", True),
        (sqlite3.SQLITE_READONLY_DIRECTORY, "SQLITE_READONLY_DIRECTORY", "not writable (", True),
        (sqlite3.SQLITE_CANTOPEN, "SQLITE_CANTOPEN", "cannot be opened (", True),
    ],
)
def test_the_machine_is_to_blame_and_it_passes(code: int, name: str, words: str, new_connection: bool) -> None:
    error = _error(code, name)
    assert errors.passes_by_waiting(error)
    assert errors.needs_new_connection(error) is new_connection
    assert errors.words(error).startswith(words)


def test_memory_comes_back_too() -> None:
    assert errors.passes_by_waiting(MemoryError())


@pytest.mark.parametrize(
    "error",
    [
        _error(sqlite3.SQLITE_CONSTRAINT_NOTNULL, "SQLITE_CONSTRAINT_NOTNULL", sqlite3.IntegrityError),
        _error(sqlite3.SQLITE_TOOBIG, "SQLITE_TOOBIG", sqlite3.DataError),
        _error(sqlite3.SQLITE_ERROR, "SQLITE_ERROR"),
        sqlite3.ProgrammingError("type 'object' is not supported"),
        OverflowError("too large"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ],
)
def test_one_callers_data_is_to_blame_and_waiting_does_not_help(error: Exception) -> None:
    assert not errors.passes_by_waiting(error)


def test_no_room_is_an_error_of_its_own_kind() -> None:
    assert type(errors.as_store_error(_error(sqlite3.SQLITE_FULL, "SQLITE_FULL"), "doing")) is StoreFullError
    other = errors.as_store_error(OverflowError("too large"), "doing")
    assert type(other) is StoreError
    assert str(other) == "doing: OverflowError: too large"
