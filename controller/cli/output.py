"""How answers reach people and programs: tables at a terminal, plain columns in a pipe, JSON where it is asked for."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, assert_never

import typer

_WIDE: Final = 200  # columns of a table that is not shown at a terminal
# Categories of characters that move the cursor, reorder the line or show nothing (Zs is the ordinary space's).
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400  # seconds


class OutputFormat(StrEnum):
    """What a listing is printed as."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="table for people, json for programs")]


def safe(text: object) -> str:
    """Text from a device or the broker, with everything a terminal could act on written as an escape."""
    return "".join(_escape(c) if unicodedata.category(c) in _UNSAFE else c for c in str(text))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def print_json(value: Any) -> None:
    """One JSON value on standard output and nothing else; everything beyond ASCII is escaped."""
    sys.stdout.write(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")


def say(text: str = "") -> None:
    """A line for people."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line beside the answer: it must not end up in a pipe."""
    sys.stderr.write(text + "\n")


def show(
    output: OutputFormat, value: Any, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = ""
) -> None:
    """Print a listing: `value` as JSON, or `rows` under `columns`; `empty` is said when there is none."""
    match output:
        case OutputFormat.JSON:
            print_json(value)
        case OutputFormat.TABLE:
            made = [[safe(cell) for cell in row] for row in rows]
            if not made and empty:
                note(empty)
            elif sys.stdout.isatty():
                _rich_table(columns, made)
            else:
                _plain_table(columns, made)
        case _:
            assert_never(output)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # a terminal only: programs that read pipes should not wait for it
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns apart by two blanks, so that both eyes and cut tools can read them."""
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
    """A time as the API writes it."""
    return datetime.fromisoformat(text)


def ago(text: str | None, now: datetime | None = None) -> str:
    """How long something is past, roughly: `12s ago`, `in 5m`."""
    if text is None:
        return "-"
    seconds = ((now or datetime.now(UTC)) - parse_time(text)).total_seconds()
    size = span(abs(seconds))
    return f"{size} ago" if seconds >= 0 else f"in {size}"


def span(seconds: float) -> str:
    """A duration, roughly."""
    if seconds < _MINUTE:
        return f"{seconds:.0f}s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f}m"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f}h"
    return f"{seconds / _DAY:.0f}d"


def exact(seconds: float) -> str:
    """A duration as it was measured: 12 ms, 3.21 s."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
