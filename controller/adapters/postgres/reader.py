"""Queries, in threads with read-only connections; one that meets no server waits for it."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import psycopg

from controller.adapters.postgres import errors
from controller.adapters.postgres.address import PostgresAddress
from controller.adapters.postgres.connection import PostgresConnection, connect
from controller.adapters.postgres.contacts import CONTACT_COLUMNS
from controller.adapters.sql import codec
from controller.adapters.sql.options import StoreOptions
from controller.domain.device import REPORT_FIELDS, Device
from controller.domain.effects import Effect
from controller.ports.errors import StoreError
from controller.ports.leases import bucket_of
from schemas.backoff import Backoff

T = TypeVar("T")
_NAME: Final = "cordon reader"
_TOLD: Final = CONTACT_COLUMNS[1:]


class PostgresReaders:
    """Threads with a read-only connection each, opened on first use."""

    def __init__(self, address: PostgresAddress, options: StoreOptions) -> None:
        self._address = address
        self._pool = ThreadPoolExecutor(options.readers, thread_name_prefix="store-reader")
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: list[PostgresConnection] = []
        self._backoff = Backoff(options.retry_floor_seconds, options.retry_ceiling_seconds)
        self._is_closing = False

    async def run(self, query: Callable[[PostgresConnection], T], patience: float | None) -> T:
        """Returns the query's result; without a server, tries again for `patience` seconds, `None`: for ever.

        Raises:
            StoreError: closed, or PostgreSQL failed.
        """
        loop = asyncio.get_running_loop()
        end, attempt = loop.time() + (patience or 0.0), 0
        while True:
            try:
                return await loop.run_in_executor(self._pool, self._query, query)
            except RuntimeError as error:
                raise StoreError("the store is closed") from error
            except psycopg.Error as error:
                wait = self._backoff.ceiling(attempt)
                is_over = patience is not None and loop.time() + wait > end
                if is_over or not _passes(error) or self._is_closing:
                    raise errors.as_store_error(error, f"cannot read the store {self._address.shown}") from error
            await asyncio.sleep(wait)
            attempt += 1

    def close(self) -> None:
        """Ends running queries and the connections; blocks."""
        self._is_closing = True
        with self._lock:
            for connection in self._open:
                connection.cut()
        self._pool.shutdown()
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _query(self, query: Callable[[PostgresConnection], T]) -> T:
        return query(self._connection())

    def _connection(self) -> PostgresConnection:
        found: PostgresConnection | None = getattr(self._mine, "connection", None)
        if found is not None and found.is_lost:
            with self._lock:
                self._open.remove(found)
            found.close()
            self._mine.connection = found = None
        if found is None:
            found = connect(self._address, _NAME, read_only=True)
            self._mine.connection = found
            with self._lock:
                self._open.append(found)
        return found


def _passes(error: psycopg.Error) -> bool:
    """Whether the server is away, stops, or starts: classes 08 and 57P, and failures that have no code."""
    code = error.sqlstate
    return isinstance(error, psycopg.OperationalError) and (code is None or code[:2] == "08" or code[:3] == "57P")


def effects(
    connection: PostgresConnection, buckets: frozenset[int] | None = None, devices: Sequence[str] | None = None
) -> list[Effect]:
    """Returns pending effects of these buckets and devices, oldest first; `None`: of all."""
    wanted: list[tuple[str, list[Any]]] = []
    if buckets is not None:
        wanted.append(("bucket = ANY(?::int2[])", sorted(buckets)))
    if devices is not None:
        wanted.append(("bucket = ANY(?::int2[])", sorted({bucket_of(one) for one in devices})))
        wanted.append(("device_id = ANY(?::text[])", list(devices)))
    where = " AND ".join(condition for condition, _ in wanted) or "true"
    query = f"SELECT effect_id, kind, body FROM outbox WHERE {where} ORDER BY seq"  # noqa: S608 - constants
    return [codec.effect_from(*row) for row in connection.execute(query, [values for _, values in wanted])]


DEVICES: Final = (
    "SELECT devices.device_id, first_seen, online, level, state,"  # noqa: S608 - constants
    f" {', '.join(f'contacts.{name}' for name in _TOLD)} FROM devices JOIN contacts USING (device_id)"
)


def device_of(row: Sequence[Any]) -> Device:
    """Returns the device of a row of `DEVICES`."""
    device_id, first_seen, online, level, state, last_seen, stale, *told = row
    nothing = [None] * len(REPORT_FIELDS)  # no stored report is later than the contact
    return codec.device_from((device_id, first_seen, last_seen, online, stale, level, state, *told, *nothing))
