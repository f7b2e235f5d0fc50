"""The store on SQLite: one file, one writer thread, a few reader threads."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from controller.adapters.sqlite import audit_chain, codec, containment_state, guard_state, reader, schema
from controller.adapters.sqlite import tokens as token_rows
from controller.adapters.sqlite.dead_letters import DeadLetterIndex
from controller.adapters.sqlite.options import StoreOptions
from controller.adapters.sqlite.restore import copy_to
from controller.adapters.sqlite.statements import WriteJob, work_of
from controller.adapters.sqlite.writer import WriterThread
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import CommandRecord
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.store import (
    ApiToken,
    DeadLetter,
    Store,
    StoredAuditEntry,
    StoreHealth,
    StoreWrites,
    TokenChange,
)
from schemas.commands import CommandState

P = ParamSpec("P")
T = TypeVar("T")
_DAY: Final = 86_400.0  # seconds
_ROW_BYTES: Final = 512  # approximate size of a row of another store in the same file
_PRUNE_ROWS: Final = 1000  # rows deleted in one transaction, so that commits are not held up
_ENDED: Final = ", ".join(f"'{state.value}'" for state in CommandState if state.is_end)
_PRUNE_COMMANDS: Final = (
    f"DELETE FROM commands WHERE seq IN (SELECT seq FROM commands WHERE state IN ({_ENDED})"  # noqa: S608 - constants
    f" AND updated_at < ? LIMIT {_PRUNE_ROWS})"
)
DEFAULTS: Final = StoreOptions()


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
        containment_state = connection.execute("SELECT seq, device_id FROM dead_letters ORDER BY seq").fetchall()
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"cannot open the store {path}: {error}") from error
    next_seq = containment_state[-1][0] + 1 if containment_state else 1
    bounds = {"most": options.max_dead_letters, "most_per_device": options.max_dead_letters_per_device}
    return path, connection, DeadLetterIndex(containment_state, next_seq, **bounds)


def _query(
    query: Callable[Concatenate[sqlite3.Connection, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Returns a method of the store that runs the query in a reader."""

    async def method(self: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.read(lambda connection: query(connection, *args, **kwargs))

    return method


def _change(
    change: Callable[Concatenate[sqlite3.Connection, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Returns a method of the store that makes the change in the writer."""

    async def method(self: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.write(lambda connection: change(connection, *args, **kwargs))

    return method


class SqliteStore(Store):
    """`controller.ports.store.Store`, created by `open_store` and used from one event loop."""

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
        self._path = path
        self._book = book
        self._now = now
        self._options = options
        self._readers = reader.ReaderPool(path, options)
        self._writer = WriterThread(path, connection, options, now, log)

    @property
    def path(self) -> Path:
        """The store's file; other files of the store lie beside it."""
        return self._path

    @property
    def health(self) -> StoreHealth:
        """Whether commits succeed."""
        return self._writer.health

    def commit(self, writes: StoreWrites) -> Awaitable[None]:
        """Queues a commit at once; the awaitable ends when it is on disk.

        Raises:
            StoreError: closed, the queue is full, or (when awaited) these writes cannot be stored.
        """
        return self._writer.submit(work_of(writes, self._book, self._options.dead_payload_bytes))

    async def keep_rules(self, device_id: str, case_id: str, rules: AccessRules, at: float) -> None:
        """Saves the rules that a client had before the case; the first rules of a case stay."""
        await self._execute(
            "INSERT INTO kept_rules (device_id, case_id, at, rules) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (device_id, case_id) DO NOTHING",
            (device_id, case_id, at, codec.dump_rules(rules)),
        )

    async def add_token(self, token: ApiToken, most: int, writes: StoreWrites) -> TokenChange:
        return await self._change_tokens(partial(token_rows.add, token=token, most=most), writes)

    async def revoke_token(self, token: ApiToken, writes: StoreWrites) -> TokenChange:
        return await self._change_tokens(partial(token_rows.revoke, token=token), writes)

    async def _change_tokens(
        self, change: Callable[[sqlite3.Connection], TokenChange], writes: StoreWrites
    ) -> TokenChange:
        """Changes the tokens, and commits `writes` with it, if nothing forbids the change."""
        work = work_of(writes, self._book, self._options.dead_payload_bytes)

        def both(connection: sqlite3.Connection) -> TokenChange:
            found = change(connection)
            if found is TokenChange.DONE:
                work.run(connection)
            return found

        result: TokenChange = await self._writer.submit(WriteJob(both, work.rows + 1, work.size + _ROW_BYTES))
        return result

    async def prune(self) -> int:
        """Deletes rows past their retention in small transactions; returns how many."""
        now = self._now()
        before = now - self._options.audit_days * _DAY
        gone = 0
        while rows := await self.write(lambda connection: audit_chain.prune(connection, before, now, _PRUNE_ROWS)):
            gone += rows
        gone += await self._prune(_PRUNE_COMMANDS, now - self._options.command_days * _DAY)
        return gone + await self.write(partial(guard_state.prune, now=now))

    async def _prune(self, statement: str, before: float) -> int:
        gone = 0
        while rows := await self._execute(statement, (before,)):
            gone += rows
        return gone

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Returns the result of `change`, which is on disk then; also for other stores in the same file.

        Raises:
            StoreError: closed, the queue is full, or the change cannot be stored.
        """
        result: T = await self._writer.submit(WriteJob(change))
        return result

    async def commit_with(self, writes: StoreWrites, change: Callable[[sqlite3.Connection], object], rows: int) -> None:
        """Commits `writes` and a `change` of about `rows` rows in one transaction, for other stores in the same file.

        Raises:
            StoreError: as `commit`; neither was stored.
        """
        work = work_of(writes, self._book, self._options.dead_payload_bytes)

        def both(connection: sqlite3.Connection) -> None:
            work.run(connection)
            change(connection)

        await self._writer.submit(WriteJob(both, work.rows + rows, work.size + rows * _ROW_BYTES))

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Returns the result of `query` on a read-only connection.

        Raises:
            StoreError: closed, or SQLite failed.
        """
        return await self._readers.run(query)

    async def _execute(self, statement: str, values: tuple[Any, ...]) -> int:
        """Returns how many rows a statement changed."""
        return await self.write(lambda connection: connection.execute(statement, values).rowcount)

    devices = _query(reader.devices)
    report = _query(reader.report)
    reports = _query(reader.reports)
    guard_books = _query(guard_state.books)
    accepted_policies = _query(guard_state.accepted_policies)
    accept_policies = _change(guard_state.accept_policies)
    knowledge = _query(guard_state.knowledge)
    effects = _query(reader.effects)
    kept_rules = _query(reader.kept_rules)
    kept_subscriptions = _query(containment_state.subscriptions)
    keep_subscriptions = _change(containment_state.keep_subscriptions)
    forget_rules = _change(containment_state.forget)
    audit_head = _query(audit_chain.head)
    record_use = _query(reader.record_use)
    check_audit = _query(audit_chain.check)
    user_cases = _query(containment_state.user_cases)
    tokens = _query(token_rows.every)
    put_token = _change(token_rows.put)

    async def audit(
        self,
        *,
        device_id: str | None = None,
        case_id: str | None = None,
        kind: AuditKind | None = None,
        alerts_only: bool = False,
        after: int = 0,
        limit: int = 200,
        newest_first: bool = True,
    ) -> Sequence[StoredAuditEntry]:
        """Lists audit entries after the `seq` `after` in the chosen direction (0: from its start)."""
        query = partial(
            reader.audit,
            wanted={"device_id": device_id, "case_id": case_id, "kind": None if kind is None else kind.value},
            alerts_only=alerts_only,
            after=after,
            limit=reader.check_limit(limit),
            newest_first=newest_first,
        )
        return await self._readers.run(query)

    async def commands(
        self, *, device_id: str | None = None, state: str | None = None, limit: int = 200, after: str | None = None
    ) -> Sequence[CommandRecord]:
        wanted = {"device_id": device_id, "state": state}
        most = reader.check_limit(limit)
        return await self._readers.run(partial(reader.commands, wanted=wanted, limit=most, after=after))

    async def command(self, command_id: str) -> CommandRecord | None:
        found = await self._readers.run(partial(reader.commands, wanted={"command_id": command_id}, limit=1))
        return found[0] if found else None

    async def dead_letters(
        self, *, device_id: str | None = None, limit: int = 100, after: int = 0
    ) -> Sequence[DeadLetter]:
        wanted = {"device_id": device_id}
        most = reader.check_limit(limit)
        return await self._readers.run(partial(reader.dead_letters, wanted=wanted, limit=most, after=after))

    async def counts(self) -> dict[str, Any]:
        """Returns the rows of each table by name, and `bytes` on disk, including the write-ahead log."""
        rows = await self._readers.run(reader.counts)
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
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._writer.disconnect)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
