"""Classifies and describes failures of PostgreSQL: transient, or caused by the data of one caller."""

from typing import Final

import psycopg

from controller.ports.errors import StoreError, StoreFullError

# Classes of SQLSTATE that a statement or its data cause: cardinality, data, integrity, syntax and names, limits.
_OF_DATA: Final = ("21", "22", "23", "42", "54")
_DENIED: Final = "42501"  # somebody may give the right back
_FULL: Final = "53100"
_WORDS: Final = {
    "53100": "no room left",
    "53200": "out of memory",
    "53300": "too many connections",
    "55P03": "locked by another process",
    "57014": "it took too long",
    "57P01": "the server stops",
    "57P02": "the server crashed",
    "57P03": "the server does not accept connections yet",
    "25006": "the server is read-only",
    "25P03": "a transaction waited too long",
    "28000": "access denied",
    "28P01": "access denied: wrong password",
    "3D000": "there is no such database",
    "42501": "access denied",
    "42P01": "a table is missing",
}
_MAX_TEXT: Final = 300  # characters of what the server says


def is_of_data(error: BaseException) -> bool:
    """Whether the data of one caller are the cause, and not the server, the network or the machine."""
    if isinstance(error, MemoryError):
        return False
    if not isinstance(error, psycopg.Error):
        return True
    if error.sqlstate is None:  # psycopg's own: it cannot send the value, or lost the server
        return isinstance(error, psycopg.DataError | psycopg.ProgrammingError)
    return error.sqlstate[:2] in _OF_DATA and error.sqlstate != _DENIED


def words(error: BaseException) -> str:
    """Returns the text for the operator, with what the server says in brackets."""
    if isinstance(error, StoreError):
        return str(error)
    said = " ".join(str(error).split())[:_MAX_TEXT]
    if not isinstance(error, psycopg.Error):
        return f"{type(error).__name__}: {said}"
    if error.sqlstate is None:
        return f"no connection to PostgreSQL ({said})"
    return f"{_WORDS.get(error.sqlstate, 'PostgreSQL refused')} ({error.sqlstate}: {said})"


def as_store_error(error: BaseException, doing: str) -> StoreError:
    """Returns the port's error; raise it `from` the failure."""
    is_full = isinstance(error, psycopg.Error) and error.sqlstate == _FULL
    return (StoreFullError if is_full else StoreError)(f"{doing}: {words(error)}")
