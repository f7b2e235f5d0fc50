"""A connection as both engines offer it, and the few expressions that they write differently."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

BYTES_PER_ROW: Final = 64  # size of a row besides its texts


class SqlCursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class SqlConnection(Protocol):
    """`sqlite3.Connection` is one; values stand for `?` in the statement."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> SqlCursor: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> SqlCursor: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """Expressions over columns with JSON text.

    Attributes:
        detail_name: the field `name` of `audit.detail`.
        detail_bytes: the size of `audit.detail`.
        open_reverts: whether rings of `rollouts.body` have devices that are going back.
        failed_rings: whether rings of `rollouts.body` have failed or declined devices.
        is_reverting: whether `rollouts.body` is a rollout that rolls back.
    """

    detail_name: str
    detail_bytes: str
    open_reverts: str
    failed_rings: str
    is_reverting: str


@dataclass(frozen=True, slots=True)
class WriteJob:
    """One caller's part of a transaction; `run` is called in the writer thread, again if the transaction failed.

    `rows` and `size` (approximate bytes) count towards the limits of a transaction and of the queue. `alone`: no other
    such job of any process is in a transaction meanwhile, so that what it reads is so until its commit.
    """

    run: Callable[[Any], object]
    rows: int = 1
    size: int = BYTES_PER_ROW
    alone: bool = True


def size_of(rows: Iterable[Sequence[Any]]) -> int:
    """Returns the approximate bytes of rows."""
    return sum(BYTES_PER_ROW + sum(len(value) for value in row if isinstance(value, str | bytes)) for row in rows)
