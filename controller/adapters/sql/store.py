"""The port's implementation over an engine: what is queued, read and pruned; how is the engine's part."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from controller.adapters.sql import audit_chain, containment_state, guard_state, queries
from controller.adapters.sql import tokens as token_rows
from controller.adapters.sql.connection import Dialect, SqlConnection, WriteJob
from controller.adapters.sql.options import StoreOptions
from controller.domain.audit_anchors import AuditHeads, AuditVerification
from controller.domain.audit_chain import ChainHead
from controller.domain.audit_id import AuditCursor
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import CommandRecord, Effect
from controller.domain.guards.approvals import ApprovalRequest
from controller.domain.record_budget import RecordUse
from controller.ports.fleet_queries import FleetQueries
from controller.ports.leases import Leases
from controller.ports.store import ApiToken, DeadLetter, Store, StoredAuditEntry, StoreHealth, StoreWrites, TokenChange
from schemas.commands import CommandState

P = ParamSpec("P")
T = TypeVar("T")
_DAY: Final = 86_400.0  # seconds
_ROW_BYTES: Final = 512  # approximate size of a row of another store in the same database
_PRUNE_ROWS: Final = 1000  # rows deleted in one transaction, so that commits are not held up
_ENDED: Final = ", ".join(f"'{state.value}'" for state in CommandState if state.is_end)
_PRUNE_COMMANDS: Final = (
    f"DELETE FROM commands WHERE seq IN (SELECT seq FROM commands WHERE state IN ({_ENDED})"  # noqa: S608 - constants
    f" AND updated_at < ? LIMIT {_PRUNE_ROWS})"
)


def reading(
    query: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Returns a method of the store that runs the query in a reader, with a connection of the store's engine."""

    async def method(self: "SqlStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.read(lambda connection: query(connection, *args, **kwargs))

    return method


def _change(
    change: Callable[Concatenate[SqlConnection, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Returns a method of the store that makes the change in the writer."""

    async def method(self: "SqlStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.write(lambda connection: change(connection, *args, **kwargs))

    return method


class SqlStore(Store, ABC):
    """`controller.ports.store.Store`, used from one event loop; other stores in the same database use it too."""

    dialect: Dialect
    fleet_queries: FleetQueries
    shared_leases: Leases | None = None  # None: one controller has the store for itself

    def __init__(self, now: Callable[[], float], options: StoreOptions) -> None:
        self._now = now
        self._options = options

    @property
    @abstractmethod
    def health(self) -> StoreHealth: ...

    @abstractmethod
    def _submit(self, work: WriteJob) -> asyncio.Future[Any]:
        """Queues `work`; the future has its result once it is on disk.

        Raises:
            StoreError: closed, or the queue is full.
        """

    @abstractmethod
    def _work_of(self, writes: StoreWrites) -> WriteJob:
        """Prepares `writes`.

        Raises:
            StoreError: a value cannot be stored.
        """

    @abstractmethod
    async def read(self, query: Callable[[SqlConnection], T]) -> T:
        """Returns the result of `query` on a read-only connection.

        Raises:
            StoreError: closed, or the engine failed.
        """

    @abstractmethod
    async def check_audit(self, noted: AuditHeads | None = None) -> AuditVerification: ...

    @abstractmethod
    def _prune_audit(self, connection: Any, before: float, now: float, most: int) -> int:
        """Deletes old audit rows, at most `most`, and records that in a row; returns how many."""

    @abstractmethod
    def _add_anchor(self, connection: Any, now: float) -> ChainHead | None:
        """Adds an anchor of the audit log if it has changed since the last one."""

    @abstractmethod
    async def close(self) -> None: ...

    def with_patience(self, seconds: float) -> Self:
        """The same store, of which a query fails when the engine is away for this long; by default it waits for it."""
        del seconds
        return self

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            StoreError: another controller has taken over the store.
        """
        await asyncio.Event().wait()

    def commit(self, writes: StoreWrites) -> Awaitable[None]:
        """Queues a commit at once; the awaitable ends when it is on disk.

        Raises:
            StoreError: closed, the queue is full, or (when awaited) these writes cannot be stored.
        """
        return self._submit(self._work_of(writes))

    async def write(self, change: Callable[[SqlConnection], T]) -> T:
        """Returns the result of `change`, which is on disk then; also for other stores in the same database.

        Raises:
            StoreError: closed, the queue is full, or the change cannot be stored.
        """
        result: T = await self._submit(WriteJob(change))
        return result

    async def commit_with(self, writes: StoreWrites, change: Callable[[SqlConnection], object], rows: int) -> None:
        """Commits `writes` and a `change` of about `rows` rows in one transaction, for stores in the same database.

        Raises:
            StoreError: as `commit`; neither was stored.
        """
        work = self._work_of(writes)

        def both(connection: SqlConnection) -> None:
            work.run(connection)
            change(connection)

        await self._submit(WriteJob(both, work.rows + rows, work.size + rows * _ROW_BYTES))

    async def change_with(
        self, writes: StoreWrites, change: Callable[[SqlConnection], T], is_done: Callable[[T], bool]
    ) -> T:
        """Makes a small change, and commits `writes` with it if `is_done` says so of its result; returns the result.

        A change that is not done must not have changed anything.

        Raises:
            StoreError: as `commit`; neither was stored.
        """
        work = self._work_of(writes)

        def both(connection: SqlConnection) -> T:
            found = change(connection)
            if is_done(found):
                work.run(connection)
            return found

        result: T = await self._submit(WriteJob(both, work.rows + 1, work.size + _ROW_BYTES))
        return result

    async def add_token(
        self, token: ApiToken, most: int, writes: StoreWrites, most_of_owner: int | None = None
    ) -> TokenChange:
        bounds = most, most if most_of_owner is None else most_of_owner
        change = partial(token_rows.add, token=token, bounds=bounds, detail_name=self.dialect.detail_name)
        return await self.change_with(writes, change, _is_done)

    async def revoke_token(self, token: ApiToken, writes: StoreWrites) -> TokenChange:
        return await self.change_with(writes, partial(token_rows.revoke, token=token), _is_done)

    async def warnings(self) -> Sequence[str]:
        return ()

    async def prune(self) -> int:
        """Deletes rows past their retention in small transactions, and adds an anchor; returns how many."""
        now = self._now()
        before = now - self._options.audit_days * _DAY
        gone = 0
        while rows := await self.write(lambda connection: self._prune_audit(connection, before, now, _PRUNE_ROWS)):
            gone += rows
        await self.write(lambda connection: self._add_anchor(connection, now))
        ended = now - self._options.command_days * _DAY
        while rows := await self.write(lambda connection: connection.execute(_PRUNE_COMMANDS, (ended,)).rowcount):
            gone += rows
        return gone + await self.write(partial(guard_state.prune, now=now))

    audit_heads = reading(audit_chain.heads)
    report = reading(queries.report)
    reports = reading(queries.reports)
    guard_books = reading(guard_state.books)
    approval = reading(guard_state.approval)
    accepted_policies = reading(guard_state.accepted_policies)
    accept_policies = _change(guard_state.accept_policies)
    knowledge = reading(guard_state.knowledge)
    keep_rules = _change(queries.keep_rules)
    kept_rules = reading(queries.kept_rules)
    kept_subscriptions = reading(containment_state.subscriptions)
    keep_subscriptions = _change(containment_state.keep_subscriptions)
    forget_rules = _change(containment_state.forget)
    user_cases = reading(containment_state.user_cases)
    tokens = reading(token_rows.every)
    put_token = _change(token_rows.put)

    async def effects(
        self, buckets: frozenset[int] | None = None, devices: Sequence[str] | None = None
    ) -> Sequence[Effect]:
        """Lists pending effects, oldest first; only of a store that controllers share the buckets are asked for."""
        del buckets, devices
        return await self.read(queries.effects)

    async def record_use(self, since: float) -> Sequence[RecordUse]:
        return await self.read(partial(queries.record_use, dialect=self.dialect, since=since))

    async def audit(
        self,
        *,
        device_id: str | None = None,
        case_id: str | None = None,
        kind: AuditKind | None = None,
        alerts_only: bool = False,
        after: AuditCursor | None = None,
        limit: int = 200,
        newest_first: bool = True,
        actor: str | None = None,
        kinds: Sequence[AuditKind] = (),
        since: float | None = None,
        until: float | None = None,
    ) -> Sequence[StoredAuditEntry]:
        """Lists audit entries, after `after` in the chosen direction."""
        query = partial(
            queries.audit,
            wanted={
                "device_id": device_id,
                "case_id": case_id,
                "kind": None if kind is None else kind.value,
                "actor": actor,
            },
            kinds=[one.value for one in kinds],
            since=since,
            until=until,
            alerts_only=alerts_only,
            after=after,
            limit=queries.check_limit(limit),
            newest_first=newest_first,
        )
        return await self.read(query)

    async def commands(
        self, *, device_id: str | None = None, state: str | None = None, limit: int = 200, after: str | None = None
    ) -> Sequence[CommandRecord]:
        wanted = {"device_id": device_id, "state": state}
        most = queries.check_limit(limit)
        return await self.read(partial(queries.commands, wanted=wanted, limit=most, after=after))

    async def command(self, command_id: str) -> CommandRecord | None:
        found = await self.read(partial(queries.commands, wanted={"command_id": command_id}, limit=1))
        return found[0] if found else None

    async def approvals(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        requester: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Sequence[ApprovalRequest]:
        wanted = {"state": state, "kind": kind, "requester": requester}
        most = queries.check_limit(limit)
        return await self.read(partial(guard_state.approvals, wanted=wanted, limit=most, after=after))

    async def dead_letters(
        self, *, device_id: str | None = None, limit: int = 100, after: int = 0
    ) -> Sequence[DeadLetter]:
        wanted = {"device_id": device_id}
        most = queries.check_limit(limit)
        return await self.read(partial(queries.dead_letters, wanted=wanted, limit=most, after=after))

    async def counts(self) -> dict[str, Any]:
        """Returns the rows of each table by name, and `bytes` on disk."""
        return await self.read(queries.counts)


def _is_done(change: TokenChange) -> bool:
    return change is TokenChange.DONE
