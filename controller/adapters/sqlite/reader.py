"""Queries, in threads with read-only connections, so that a slow listing does not delay commits."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from controller.adapters.sqlite import codec, errors, schema
from controller.adapters.sqlite.options import StoreOptions
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import REPORT_FIELDS, Device
from controller.domain.effects import AuditEntry, CommandRecord, Effect
from controller.domain.record_budget import FROM_STRANGERS, ROW_BYTES, RecordUse
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import (
    StoreError,
    UnknownRowError,
)
from controller.ports.store import DeadLetter, StoredAuditEntry

T = TypeVar("T")
MAX_ROWS: Final = 10_000  # rows of one listing

_KINDS: Final = frozenset(AuditKind)
_LISTED: Final = (
    "devices",
    "reports",
    "outbox",
    "commands",
    "dead_letters",
    "kept_rules",
    "kept_subscriptions",
    "identity_cases",
    "tokens",
)


class ReaderPool:
    """Threads with a read-only connection each, opened on first use."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self._path = path
        self._options = options
        self._pool = ThreadPoolExecutor(options.readers, thread_name_prefix="store-reader")
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Returns the query's result.

        Raises:
            StoreError: closed, or SQLite failed.
        """
        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._pool, self._query, query)
        except RuntimeError as error:
            raise StoreError("the store is closed") from error
        return await waiting

    def close(self) -> None:
        """Waits for running queries, then closes the connections; blocks."""
        self._pool.shutdown()
        for connection in self._open:
            with contextlib.suppress(sqlite3.Error):  # read-only
                connection.close()
        self._open.clear()

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._connection())
        except sqlite3.Error as error:
            raise errors.as_store_error(error, f"cannot read the store {self._path}") from error

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        if found is None:
            found = schema.connect(self._path, self._options, read_only=True)
            self._mine.connection = found
            with self._lock:
                self._open.append(found)
        return found


def check_limit(limit: int) -> int:
    """Returns the limit of a listing.

    Raises:
        StoreError: it is not between 1 and `MAX_ROWS`.
    """
    if not 1 <= limit <= MAX_ROWS:
        raise StoreError(f"a listing has between 1 and {MAX_ROWS} rows, not {limit}")
    return limit


def devices(connection: sqlite3.Connection) -> list[Device]:
    columns = [f"devices.{name}" for name in codec.DEVICE_COLUMNS] + [f"reports.{name}" for name in REPORT_FIELDS]
    rows = connection.execute(f"SELECT {', '.join(columns)} FROM devices LEFT JOIN reports USING (device_id)")  # noqa: S608 - constants
    return [codec.device_from(row) for row in rows]


def report(connection: sqlite3.Connection, device_id: str) -> bytes | None:
    """Returns a device's last full report, as it was sent."""
    row = connection.execute("SELECT body FROM reports WHERE device_id = ?", (device_id,)).fetchone()
    return None if row is None else row[0]


def reports(connection: sqlite3.Connection, after: str, limit: int) -> list[tuple[str, bytes]]:
    """Returns ids and full reports of devices in the order of ids, after the id `after`."""
    return connection.execute(
        "SELECT device_id, body FROM reports WHERE device_id > ? ORDER BY device_id LIMIT ?",
        (after, check_limit(limit)),
    ).fetchall()


def effects(connection: sqlite3.Connection) -> list[Effect]:
    """Returns pending effects, oldest first."""
    return [
        codec.effect_from(*row) for row in connection.execute("SELECT effect_id, kind, body FROM outbox ORDER BY seq")
    ]


def kept_rules(connection: sqlite3.Connection, device_id: str, case_id: str) -> AccessRules | None:
    found = connection.execute(
        "SELECT rules FROM kept_rules WHERE device_id = ? AND case_id = ?", (device_id, case_id)
    ).fetchone()
    return None if found is None else codec.load_rules(device_id, found[0])


def audit(
    connection: sqlite3.Connection,
    wanted: dict[str, str | None],
    *,
    alerts_only: bool,
    after: int,
    limit: int,
    newest_first: bool,
) -> list[StoredAuditEntry]:
    """Returns audit entries; `wanted` has the columns that must be equal, None for any."""
    where, values = _equal(wanted)
    if wanted.get("case_id"):
        where.append("case_id <> ''")  # enables the partial index
    if alerts_only:
        where.append("alert = 1")
    if after > 0:
        where.append("seq < ?" if newest_first else "seq > ?")
        values.append(after)
    rows = connection.execute(
        "SELECT seq, at, kind, device_id, actor, case_id, detail, alert FROM audit"  # noqa: S608 - values are bound
        f" WHERE {' AND '.join(where)} ORDER BY seq {'DESC' if newest_first else 'ASC'} LIMIT ?",
        (*values, limit),
    )
    return [
        StoredAuditEntry(seq, at, _entry(kind, device_id, actor, case_id, codec.load_detail(detail), alert=bool(alert)))
        for seq, at, kind, device_id, actor, case_id, detail, alert in rows
    ]


def _entry(
    kind: str, device_id: str, actor: str, case_id: str, detail: dict[str, object] | None, *, alert: bool
) -> AuditEntry:
    if kind not in _KINDS:  # written by a newer version
        detail = {**(detail or {}), "stored_kind": kind}
        return AuditEntry(AuditKind.AUDIT_UNKNOWN_KIND, device_id, actor, case_id, detail, alert)
    return AuditEntry(AuditKind(kind), device_id, actor, case_id, detail, alert)


def commands(
    connection: sqlite3.Connection, wanted: dict[str, str | None], limit: int, after: str | None = None
) -> list[CommandRecord]:
    """Returns commands, newest first, from the one after `after` on.

    Raises:
        UnknownRowError: there is no command `after`.
    """
    where, values = _equal(wanted)
    if after is not None:
        row = connection.execute("SELECT seq FROM commands WHERE command_id = ?", (after,)).fetchone()
        if row is None:
            raise UnknownRowError(after)
        where.append("seq < ?")
        values.append(row[0])
    rows = connection.execute(
        f"SELECT body FROM commands WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - bound
        (*values, limit),
    )
    return [codec.command_from(body) for (body,) in rows]


def dead_letters(
    connection: sqlite3.Connection, wanted: dict[str, str | None], limit: int, after: int = 0
) -> list[DeadLetter]:
    """Returns rejected messages, newest first, from the one after `after` on."""
    where, values = _equal(wanted)
    if after:
        where.append("seq < ?")
        values.append(after)
    rows = connection.execute(
        "SELECT at, device_id, topic, reason, detail, size, payload, seq FROM dead_letters"  # noqa: S608 - values are bound
        f" WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?",
        (*values, limit),
    )
    return [DeadLetter(*row) for row in rows]


def record_use(connection: sqlite3.Connection, since: float) -> list[RecordUse]:
    """Returns what the audit holds of each device since a time; reads the rows since then and no older ones."""
    older = connection.execute("SELECT seq FROM audit WHERE at < ? ORDER BY seq DESC LIMIT 1", (since,)).fetchone()
    rows = connection.execute(
        "SELECT device_id, count(*), sum(length(CAST(detail AS BLOB))), max(kind = ?) FROM audit"
        " WHERE seq > ? AND device_id <> '' AND kind NOT IN (?, ?) GROUP BY device_id",
        (AuditKind.AUDIT_BUDGET_USED_UP.value, 0 if older is None else older[0], *sorted(FROM_STRANGERS)),
    )
    return [
        RecordUse(device_id, count, (size or 0) + count * ROW_BYTES, bool(is_told))
        for device_id, count, size, is_told in rows
    ]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Returns the rows of each table; of the audit log from its numbers, which have no gaps."""
    found = {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - constants
        for table in _LISTED
    }
    (found["audit"],) = connection.execute("SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM audit").fetchone()
    return found


def _equal(wanted: dict[str, str | None]) -> tuple[list[str], list[Any]]:
    given = {column: value for column, value in wanted.items() if value is not None}
    return ["1", *(f"{column} = ?" for column in given)], list(given.values())
