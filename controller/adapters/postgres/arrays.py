"""Columns of rows as array literals: psycopg writes arrays value by value, which costs more than all else of a contact.

Every array is sent as a text of unknown type, so that a statement is one prepared statement whatever its values are;
arrays of bytes are sent in their binary form, which doubles nothing.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from controller.adapters.sql.statements import SqlRow

_NULL: Final = "NULL"
TYPES: Final = {
    "bucket": "int2", "first_seen": "float8", "last_seen": "float8", "online": "bool", "stale": "bool",
    "report_seq": "int8", "reported_at": "float8", "accepted": "int8", "satisfied": "int8", "at": "float8",
    "body": "bytea", "deadline_at": "float8", "expected": "int8", "version": "int8", "by_report": "bool",
    "alert": "int2", "id": "int8", "chain": "bytea",
}  # fmt: skip
_BYTEA, _BYTEA_ARRAY = 17, 1001  # ids of types
_HEAD: Final = struct.Struct("!5i")  # dimensions, whether one is null, type, how many, number of the first
_LENGTH: Final = struct.Struct("!i")


class _ByteArray(bytes):
    """An array of byte strings, as the server takes it."""


class _ByteArrayDumper(Dumper):
    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: _ByteArray) -> Buffer:
        return obj


def register(connection: "psycopg.Connection[Any]") -> None:
    """Makes a connection take what `arrays` returns."""
    connection.adapters.register_dumper(_ByteArray, _ByteArrayDumper)


def unnest(columns: Sequence[str]) -> str:
    """Returns the source `new` of rows with one array for each column; `TYPES` has those that are no texts."""
    arrays = ", ".join(f"?::{TYPES.get(name, 'text')}[]" for name in columns)
    return f"unnest({arrays}) AS new ({', '.join(columns)})"


def arrays(columns: Sequence[str], rows: Sequence[SqlRow]) -> list[Any]:
    """Returns the parameters of `unnest(columns)`; there is at least one row."""
    values = zip(*rows, strict=True)
    return [_LITERALS[TYPES.get(name, "text")](column) for name, column in zip(columns, values, strict=True)]


def _texts(values: tuple[str | None, ...]) -> str:
    if None not in values:
        text = '","'.join(values)  # type: ignore[arg-type]  # all are texts
        if "\\" not in text and text.count('"') == 2 * len(values) - 2:
            return f'{{"{text}"}}'
    return f"{{{','.join(map(_quoted, values))}}}"


def _quoted(value: str | None) -> str:
    if value is None:
        return _NULL
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _numbers(values: tuple[float | None, ...]) -> str:
    return f"{{{','.join([_NULL if value is None else repr(+value) for value in values])}}}"


def _bytes(values: tuple[bytes, ...]) -> _ByteArray:
    parts = [_HEAD.pack(1, 0, _BYTEA, len(values), 1)]
    for value in values:
        parts += (_LENGTH.pack(len(value)), value)
    return _ByteArray(b"".join(parts))


def _truths(values: tuple[bool | None, ...]) -> str:
    return f"{{{','.join([_NULL if value is None else 't' if value else 'f' for value in values])}}}"


_LITERALS: Final[dict[str, Callable[[Any], Any]]] = {
    "text": _texts, "float8": _numbers, "int8": _numbers, "int2": _numbers, "bool": _truths, "bytea": _bytes,
}  # fmt: skip
