"""The store on SQLite: one file, one writer thread, a few reader threads."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from controller.adapters.sql.audit_chain import add_anchor
from controller.adapters.sql.connection import Dialect, SqlConnection, WriteJob
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sql.store import SqlStore, reading
from controller.adapters.sqlite import audit_chain, device_rows, reader, schema
from controller.adapters.sqlite.dead_letters import DeadLetterIndex
from controller.adapters.sqlite.fleet_queries import SqliteFleetQueries
from controller.adapters.sqlite.restore import copy_to
from controller.adapters.sqlite.statements import work_of
from controller.adapters.sqlite.writer import WriterThread
from controller.domain.audit_chain import ChainHead
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.store import StoreHealth, StoreWrites

T = TypeVar("T")
DEFAULTS: Final = StoreOptions()


def _rings(*fields: str) -> str:
    """Whether a ring has devices in one of the fields. Read once at a start: a column is written with every change."""
    total = " + ".join(f"coalesce(value ->> '{name}', 0)" for name in fields)
    return f"EXISTS (SELECT 1 FROM json_each(body, '$.rings') WHERE {total} > 0)"  # noqa: S608 - constants


DIALECT: Final = Dialect(
    detail_name="json_extract(detail, '$.name')",
    detail_bytes="length(CAST(detail AS BLOB))",
    open_reverts=_rings("revert_pending", "revert_away", "reverting"),
    failed_rings=_rings("failed", "declined"),
    is_reverting="body ->> 'is_reverting'",
)


async def open_store(
    path: Path, *, now: Callable[[], float], log: Log, options: StoreOptions = DEFAULTS
) -> "SqliteStore":
    """Opens the store at `path`, creates it with mode 0600 if it is absent, and migrates it to this version.

    `now` returns Unix seconds; `log` is called on the loop's thread when writing fails or recovers.

    Raises:
        StoreError: no such folder, a file of another program or of another version, not writable, locked.
    """
    found, connection, book = await asyncio.to_thread(_open, path, options)
    return SqliteStore(found, connection, book, now=now, log=log, options=options)


def _open(path: Path, options: StoreOptions) -> tuple[Path, sqlite3.Connection, DeadLetterIndex]:
    path = path.absolute()  # later connections do not depend on the working directory
    connection = schema.prepare(path, options)
    try:
        letters = connection.execute("SELECT seq, device_id FROM dead_letters ORDER BY seq").fetchall()
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"cannot open the store {path}: {error}") from error
    return path, connection, DeadLetterIndex.of(letters, options)


class SqliteStore(SqlStore):
    """`controller.ports.store.Store` in a file, created by `open_store`."""

    dialect = DIALECT

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        book: DeadLetterIndex,
        *,
        now: Callable[[], float],
        log: Log,
        options: StoreOptions,
    ) -> None:
        super().__init__(now, options)
        self._path = path
        self._book = book
        self._readers = reader.ReaderPool(path, options)
        self.fleet_queries: SqliteFleetQueries = SqliteFleetQueries(path, options)
        self._writer = WriterThread(path, connection, options, now, log)

    @property
    def path(self) -> Path:
        """The store's file; other files of the store lie beside it."""
        return self._path

    @property
    def health(self) -> StoreHealth:
        """Whether commits succeed."""
        return self._writer.health

    def _submit(self, work: WriteJob) -> asyncio.Future[Any]:
        return self._writer.submit(work)

    def _work_of(self, writes: StoreWrites) -> WriteJob:
        return work_of(writes, self._book, self._options.dead_payload_bytes)

    async def read(self, query: Callable[[SqlConnection], T]) -> T:
        """Returns the result of `query` on a read-only connection.

        Raises:
            StoreError: closed, or SQLite failed.
        """
        return await self._readers.run(query)

    load = reading(device_rows.load)
    versions = reading(device_rows.versions)
    due = reading(device_rows.due)
    silent = reading(device_rows.silent)
    page = reading(device_rows.page)
    fleet_size = reading(device_rows.fleet_size)
    fleet_versions = reading(device_rows.fleet_versions)
    check_audit = reading(audit_chain.check)

    def _prune_audit(self, connection: sqlite3.Connection, before: float, now: float, most: int) -> int:
        return audit_chain.prune(connection, before, now, most)

    def _add_anchor(self, connection: sqlite3.Connection, now: float) -> ChainHead | None:
        return add_anchor(connection, now)

    async def counts(self) -> dict[str, Any]:
        """Returns the rows of each table by name, and `bytes` on disk, including the write-ahead log."""
        rows = await super().counts()
        return {**rows, "bytes": _size(self._path) + _size(self._path.with_name(f"{self._path.name}-wal"))}

    async def backup(self, target: Path) -> None:
        """Writes a consistent copy of the store to `target` (mode 0600) while it is in use.

        Raises:
            StoreError: `target` exists, or cannot be written.
        """
        await self._readers.run(lambda connection: copy_to(connection, target.absolute()))

    async def close(self) -> None:
        """Writes the queue, then closes; commits not written within `close_seconds` fail."""
        await self._writer.stop()
        await asyncio.to_thread(self.fleet_queries.close)
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._writer.disconnect)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
