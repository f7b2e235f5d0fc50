"""The store on SQLite: one file, one thread that writes, a few that read."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from controller.adapters.sqlite import audit_chain, codec, containment_state, guard_state, reader, schema
from controller.adapters.sqlite.dead_letters import DeadLetterIndex
from controller.adapters.sqlite.options import StoreOptions
from controller.adapters.sqlite.restore import copy_to
from controller.adapters.sqlite.statements import WriteJob, work_of
from controller.adapters.sqlite.writer import WriterThread
from controller.domain.audit_chain import ChainHead, ChainVerification
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.users import UserCase
from controller.domain.device import Device
from controller.domain.effects import CommandRecord, Effect
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.store import (
    ApiToken,
    DeadLetter,
    GuardSnapshot,
    Store,
    StoredAuditEntry,
    StoreHealth,
    StoreWrites,
)
from schemas.commands import CommandState

T = TypeVar("T")
_DAY: Final = 86_400.0  # seconds
_ROW_BYTES: Final = 512  # about what a row of a store beside this one takes
_PRUNE_ROWS: Final = 1000  # rows taken away in one go, so that commits pass in between
_ENDED: Final = ", ".join(f"'{state.value}'" for state in CommandState if state.is_end)
_PRUNE_COMMANDS: Final = (
    f"DELETE FROM commands WHERE seq IN (SELECT seq FROM commands WHERE state IN ({_ENDED})"  # noqa: S608 - constants
    f" AND updated_at < ? LIMIT {_PRUNE_ROWS})"
)
DEFAULTS: Final = StoreOptions()


async def open_store(
    path: Path, *, now: Callable[[], float], log: Log, options: StoreOptions = DEFAULTS
) -> "SqliteStore":
    """Open the store at `path`, made with mode 0600 if it is absent, and bring it to this version.

    `now` gives Unix seconds; `log` is called on the loop's thread when writing stops or goes on.

    Raises:
        StoreError: no such folder, another program's file, a newer Cordon's, not writable, locked.
    """
    found, connection, book = await asyncio.to_thread(_open, path, options)
    return SqliteStore(found, connection, book, now=now, log=log, options=options)


def _open(path: Path, options: StoreOptions) -> tuple[Path, sqlite3.Connection, DeadLetterIndex]:
    path = path.absolute()  # later connections must not follow a change of the working directory
    connection = schema.prepare(path, options)
    try:
        containment_state = connection.execute("SELECT seq, device_id FROM dead_letters ORDER BY seq").fetchall()
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"cannot open the store {path}: {error}") from error
    next_seq = containment_state[-1][0] + 1 if containment_state else 1
    bounds = {"most": options.max_dead_letters, "most_per_device": options.max_dead_letters_per_device}
    return path, connection, DeadLetterIndex(containment_state, next_seq, **bounds)


class SqliteStore(Store):
    """`controller.ports.store.Store`; made by `open_store`, used from one event loop."""

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
    def health(self) -> StoreHealth:
        """Whether commits go through."""
        return self._writer.health

    def commit(self, writes: StoreWrites) -> Awaitable[None]:
        """See `Store.commit`.

        Raises:
            StoreError: closed, too much waits already, or (when awaited) this caller's data cannot be kept.
        """
        return self._writer.submit(work_of(writes, self._book, self._options.dead_payload_bytes))

    async def keep_rules(self, device_id: str, case_id: str, rules: AccessRules, at: float) -> None:
        """Remember the rules a client had before the case; the first ones of a case stay."""
        await self._execute(
            "INSERT INTO kept_rules (device_id, case_id, at, rules) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (device_id, case_id) DO NOTHING",
            (device_id, case_id, at, codec.dump_rules(rules)),
        )

    async def forget_rules(self, device_id: str, case_id: str) -> None:
        """The case is over, and the rules and subscriptions are back."""
        await self.write(partial(containment_state.forget, device_id=device_id, case_id=case_id))

    async def keep_subscriptions(
        self, device_id: str, case_id: str, cut: Sequence[SavedSubscription], at: float
    ) -> None:
        """Remember subscriptions that are about to be cut; one of the same topic replaces the earlier one."""
        await self.write(
            partial(containment_state.keep_subscriptions, device_id=device_id, case_id=case_id, cut=cut, at=at)
        )

    async def kept_subscriptions(self, device_id: str, case_id: str) -> tuple[SavedSubscription, ...]:
        """What `keep_subscriptions` remembered."""
        return await self._readers.run(partial(containment_state.subscriptions, device_id=device_id, case_id=case_id))

    async def put_token(self, token: ApiToken) -> None:
        """Add a token, or replace the one of the same name."""
        await self._execute(
            "INSERT OR REPLACE INTO tokens (name, digest, created_at, scopes, expires_at) VALUES (?, ?, ?, ?, ?)",
            (token.name, token.digest, token.created_at, " ".join(token.scopes), token.expires_at),
        )

    async def drop_token(self, name: str) -> bool:
        """Withdraw a token; whether there was one."""
        return await self._execute("DELETE FROM tokens WHERE name = ?", (name,)) > 0

    async def prune(self) -> int:
        """Take away what is older than its time, a little at once; how many rows that were."""
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
        """The result of `change`, made in a transaction and on disk when this returns; for the stores beside this one.

        Raises:
            StoreError: closed, too much waits already, or this caller's data cannot be kept.
        """
        result: T = await self._writer.submit(WriteJob(change))
        return result

    async def commit_with(self, writes: StoreWrites, change: Callable[[sqlite3.Connection], object], rows: int) -> None:
        """`commit`, and `change` of about `rows` rows in the same transaction; for the stores beside this one.

        Raises:
            StoreError: as `commit`; then nothing of both was kept.
        """
        work = work_of(writes, self._book, self._options.dead_payload_bytes)

        def both(connection: sqlite3.Connection) -> None:
            work.run(connection)
            change(connection)

        await self._writer.submit(WriteJob(both, work.rows + rows, work.size + rows * _ROW_BYTES))

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `query`, on a connection that cannot write.

        Raises:
            StoreError: closed, or SQLite could not answer.
        """
        return await self._readers.run(query)

    async def _execute(self, statement: str, values: tuple[Any, ...]) -> int:
        """Rows changed by one statement, written like a commit."""
        return await self.write(lambda connection: connection.execute(statement, values).rowcount)

    async def devices(self) -> Sequence[Device]:
        """Every device, for the start."""
        return await self._readers.run(reader.devices)

    async def report(self, device_id: str) -> bytes | None:
        """The last full report, as the device sent it."""
        return await self._readers.run(partial(reader.report, device_id=device_id))

    async def reports(self, after: str, limit: int) -> Sequence[tuple[str, bytes]]:
        """Device id and last full report in the order of ids, from the one that follows `after` on."""
        return await self._readers.run(partial(guard_state.reports, after=after, limit=reader.check_limit(limit)))

    async def guard_books(self) -> GuardSnapshot:
        """What the guards remember, for the start."""
        return await self._readers.run(guard_state.books)

    async def accepted_policies(self) -> str:
        """The version of the policies that were last put in force; empty where none were noted."""
        return await self._readers.run(guard_state.accepted_policies)

    async def accept_policies(self, version: str) -> None:
        """Note the version of the policies that are in force from now on."""
        await self.write(partial(guard_state.accept_policies, version=version))

    async def effects(self) -> Sequence[Effect]:
        """Every effect not carried out yet, oldest first."""
        return await self._readers.run(reader.effects)

    async def kept_rules(self, device_id: str, case_id: str) -> AccessRules | None:
        """What `keep_rules` remembered; `None` if nothing was."""
        return await self._readers.run(partial(reader.kept_rules, device_id=device_id, case_id=case_id))

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
        """Lines of the record; `after` is a `seq` to go on from in the chosen direction (0: from its end)."""
        query = partial(
            reader.audit,
            wanted={"device_id": device_id, "case_id": case_id, "kind": None if kind is None else kind.value},
            alerts_only=alerts_only,
            after=after,
            limit=reader.check_limit(limit),
            newest_first=newest_first,
        )
        return await self._readers.run(query)

    async def audit_head(self) -> ChainHead:
        """The end of the record's chain."""
        return await self.read(audit_chain.head)

    async def check_audit(self, noted: ChainHead | None = None) -> ChainVerification:
        """Look at every row of the record; takes some seconds for a million rows, and holds up no commit."""
        return await self.read(partial(audit_chain.check, noted=noted))

    async def user_cases(self) -> Sequence[UserCase]:
        """Every user that is contained or being let out, by name."""
        return await self._readers.run(containment_state.user_cases)

    async def commands(
        self, *, device_id: str | None = None, state: str | None = None, limit: int = 200
    ) -> Sequence[CommandRecord]:
        """Commands, newest first."""
        wanted = {"device_id": device_id, "state": state}
        return await self._readers.run(partial(reader.commands, wanted=wanted, limit=reader.check_limit(limit)))

    async def command(self, command_id: str) -> CommandRecord | None:
        """One command."""
        found = await self._readers.run(partial(reader.commands, wanted={"command_id": command_id}, limit=1))
        return found[0] if found else None

    async def dead_letters(self, *, device_id: str | None = None, limit: int = 100) -> Sequence[DeadLetter]:
        """Refused messages, newest first."""
        wanted = {"device_id": device_id}
        return await self._readers.run(partial(reader.dead_letters, wanted=wanted, limit=reader.check_limit(limit)))

    async def tokens(self) -> Sequence[ApiToken]:
        """All tokens."""
        return await self._readers.run(reader.tokens)

    async def counts(self) -> dict[str, Any]:
        """Rows of each table by its name, and `bytes` on disk, the write-ahead log included."""
        rows = await self._readers.run(reader.counts)
        return {**rows, "bytes": _size(self._path) + _size(self._path.with_name(f"{self._path.name}-wal"))}

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of the store as it is now to `target` (mode 0600), while it goes on working.

        Raises:
            StoreError: `target` exists, or cannot be written.
        """
        await self._readers.run(lambda connection: copy_to(connection, target.absolute()))

    async def close(self) -> None:
        """Finish what is queued, then close; what cannot be written in `close_seconds` fails for those who wait."""
        await self._writer.stop()
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._writer.disconnect)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
