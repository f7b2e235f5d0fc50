"""Prints results: tables at a terminal, plain columns in a pipe, JSON with `--output json`."""

import contextlib
import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, assert_never

import typer

from schemas.durations import parse_duration

_WIDE: Final = 200  # characters of a column that is not printed at a terminal
# Categories of characters that move the cursor, reorder the line or are invisible (the ordinary space is Zs).
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400  # seconds


class OutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="table for people, json for programs")]


def safe(text: object) -> str:
    """Returns text from a device or the broker with every character that a terminal interprets escaped."""
    return "".join(_escape(c) if unicodedata.category(c) in _UNSAFE else c for c in str(text))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def print_json(value: Any) -> None:
    """Prints one JSON value in ASCII on standard output."""
    sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")


def say(text: str = "") -> None:
    """Prints a line on standard output."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Prints a line on standard error, so that it does not get into a pipe; nobody may be there to read it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")


def show(
    output: OutputFormat, value: Any, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = ""
) -> None:
    """Prints a listing: `value` as JSON, or `rows` under `columns`; without rows the text `empty`."""
    match output:
        case OutputFormat.JSON:
            print_json(value)
        case OutputFormat.TABLE:
            cells = [[safe(cell) for cell in row] for row in rows]
            if not cells and empty:
                note(empty)
            elif sys.stdout.isatty():
                _rich_table(columns, cells)
            else:
                _plain_table(columns, cells)
        case _:
            assert_never(output)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # imported late: programs that read pipes would wait for it
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns two spaces apart, for people and for `cut`."""
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [min(_WIDE, max(len(line[index]) for line in lines)) for index in range(len(columns))]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


STYLES: Final = {
    "isolated": "bold red",
    "restricted": "bold yellow",
    "fail": "red",
    "error": "magenta",
    "unknown": "yellow",
    "pass": "green",
    "stale": "yellow",
    "succeeded": "green",
    "failed": "red",
    "critical": "bold red",
    "high": "red",
}


def parse_time(text: str) -> datetime:
    """Parses a time as the API writes it."""
    return datetime.fromisoformat(text)


def moment(text: str, now: datetime | None = None) -> str:
    """Returns a time as the API reads it: `text` itself, or so long ago as a duration like `2h` says."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return text
    return ((now or datetime.now(UTC)) - timedelta(seconds=seconds)).isoformat()


def ago(text: str | None, now: datetime | None = None) -> str:
    """Formats a time relative to now: `12s ago`, `in 5m`."""
    if text is None:
        return "-"
    seconds = ((now or datetime.now(UTC)) - parse_time(text)).total_seconds()
    size = span(abs(seconds))
    return f"{size} ago" if seconds >= 0 else f"in {size}"


def span(seconds: float) -> str:
    """Formats a duration in its largest unit."""
    if seconds < _MINUTE:
        return f"{seconds:.0f}s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f}m"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f}h"
    return f"{seconds / _DAY:.0f}d"


def exact(seconds: float) -> str:
    """Formats a measured duration: `12.0 ms`, `3.21 s`."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
