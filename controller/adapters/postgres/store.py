"""The store on PostgreSQL: a database, one writer thread, a few reader threads."""

import asyncio
import copy
from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypeVar

import psycopg

from controller.adapters.postgres import audit_chain, device_rows, errors, reader, registration, schema, status
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.audit_chain import WritingConnection
from controller.adapters.postgres.connection import connect
from controller.adapters.postgres.fleet_queries import PostgresFleetQueries
from controller.adapters.postgres.leases import PostgresLeases
from controller.adapters.postgres.registration import Registration
from controller.adapters.postgres.statements import work_of
from controller.adapters.postgres.writer import PostgresWriter
from controller.adapters.sql.connection import Dialect, SqlConnection, WriteJob
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sql.store import SqlStore, reading
from controller.domain.audit_chain import ChainHead
from controller.ports.log import Log
from controller.ports.store import StoreHealth, StoreWrites

T = TypeVar("T")
DEFAULTS: Final = StoreOptions()


def _rings(*fields: str) -> str:
    total = " + ".join(f"coalesce((ring ->> '{name}')::integer, 0)" for name in fields)
    return f"EXISTS (SELECT 1 FROM json_array_elements(body::json -> 'rings') AS ring WHERE {total} > 0)"  # noqa: S608 - constants


DIALECT: Final = Dialect(
    detail_name="(detail::json ->> 'name')",
    detail_bytes="octet_length(detail)",
    open_reverts=_rings("revert_pending", "revert_away", "reverting"),
    failed_rings=_rings("failed", "declined"),
    is_reverting="coalesce((body::json ->> 'is_reverting')::boolean, false)",
)


async def open_store(
    address: PostgresAddress,
    *,
    name: str | None,
    version: str = "",
    now: Callable[[], float],
    log: Log,
    options: StoreOptions = DEFAULTS,
) -> "PostgresStore":
    """Opens the store, and creates or migrates its tables.

    `name` and `version`: of the controller that works with it from now on; no name for a command beside controllers.
    `now` returns Unix seconds; `log` is called on the loop's thread when writing fails or recovers.

    Raises:
        StoreError: no server, access denied, another program's or version's database, another controller works with it.
    """
    connection, run = await asyncio.to_thread(_open, address, name, version, now())
    return PostgresStore(address, connection, run, now=now, log=log, options=options)


def _open(
    address: PostgresAddress, name: str | None, version: str, now: float
) -> tuple[WritingConnection, Registration | None]:
    connection: WritingConnection | None = None
    try:
        connection = WritingConnection(connect(address, "cordon starting" if name is not None else "cordon command"))
        schema.prepare(connection, address.shown)
        run = None
        if name is not None:
            run = registration.register(connection, address.shown, name, version, now=now)
            named = registration.writer_name(run.writer)
            connection.execute("SELECT set_config('application_name', ?, false)", (named,))
    except psycopg.Error as error:
        if connection is not None:
            connection.close()
        raise errors.as_store_error(error, f"cannot open the store {address.shown}") from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection, run


class PostgresStore(SqlStore):
    """`controller.ports.store.Store` in a database, created by `open_store`."""

    dialect = DIALECT
    shared_leases: PostgresLeases | None

    def __init__(
        self,
        address: PostgresAddress,
        connection: WritingConnection,
        run: Registration | None,
        *,
        now: Callable[[], float],
        log: Log,
        options: StoreOptions,
    ) -> None:
        super().__init__(now, options)
        self._patience: float | None = None
        self._readers = reader.PostgresReaders(address, options)
        self.fleet_queries: PostgresFleetQueries = PostgresFleetQueries(address, options)
        self._writer = PostgresWriter(address, connection, run, options, now, log)
        self.shared_leases = None
        if run is not None:
            self.shared_leases = PostgresLeases(address, self._writer, run, self.read, now, log)

    @property
    def health(self) -> StoreHealth:
        """Whether commits succeed."""
        return self._writer.health

    def with_patience(self, seconds: float) -> Self:
        other = copy.copy(self)
        other._patience = seconds  # noqa: SLF001 - of the same class
        return other

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            ExceptionGroup: of a `StoreError`: this run is fenced.
        """
        async with asyncio.TaskGroup() as group:
            if self.shared_leases is not None:
                group.create_task(self.shared_leases.run(), name="leases")
            await self._writer.fenced.wait()
            raise self._writer.refusal

    def _submit(self, work: WriteJob) -> asyncio.Future[Any]:
        return self._writer.submit(work)

    def _work_of(self, writes: StoreWrites) -> WriteJob:
        return work_of(writes, self._options)

    async def read(self, query: Callable[[SqlConnection], T]) -> T:
        """Returns the result of `query` on a read-only connection; waits for a server that is away.

        Raises:
            StoreError: closed, PostgreSQL failed, or it was away for too long.
        """
        return await self._readers.run(query, self._patience)

    load = reading(device_rows.load)
    versions = reading(device_rows.versions)
    due = reading(device_rows.due)
    silent = reading(device_rows.silent)
    page = reading(device_rows.page)
    fleet_size = reading(device_rows.fleet_size)
    fleet_versions = reading(device_rows.fleet_versions)
    guard_books = reading(device_rows.guard_books)
    effects = reading(reader.effects)
    check_audit = reading(audit_chain.check)

    def _prune_audit(self, connection: WritingConnection, before: float, now: float, most: int) -> int:
        return audit_chain.prune(connection, before, now, most)

    def _add_anchor(self, connection: WritingConnection, now: float) -> ChainHead | None:
        return audit_chain.add_anchor(connection, now)

    async def counts(self) -> dict[str, Any]:
        """Returns the rows of each table by name, and `bytes` of the database."""
        rows = await super().counts()
        size = "SELECT pg_database_size(current_database())"
        return {**rows, "bytes": await self.read(lambda connection: connection.execute(size).fetchone()[0])}

    async def warnings(self) -> Sequence[str]:
        return await self.read(status.warnings)

    async def close(self) -> None:
        """Writes the queue, then closes; commits not written within `close_seconds` fail."""
        await self._writer.stop()
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self.fleet_queries.close)
        await asyncio.to_thread(self._writer.disconnect)
