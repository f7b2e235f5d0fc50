"""Notifications: sinks, threads and deliveries, beside the audit log whose lines they tell of."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import accumulate, islice
from typing import Any, Final

from controller.adapters.sql import queries
from controller.adapters.sql.audit_chain import chains
from controller.adapters.sql.codec import JsonCodec
from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.domain.audit_id import AuditId
from controller.domain.notifications.kinds import notifying_kinds
from controller.domain.notifications.model import (
    Acknowledgement,
    Delivery,
    DeliveryState,
    Message,
    Sink,
    SinkState,
    Thread,
)
from controller.domain.notifications.planning import Plan, ThreadKey
from controller.ports.notifications import LoggedDelivery, NotificationStore, SinkChange
from controller.ports.store import StoredAuditEntry, StoreWrites

_SINK: Final = JsonCodec(Sink)
_THREAD: Final = JsonCodec(Thread)
_MESSAGE: Final = JsonCodec(Message)
_PENDING: Final = DeliveryState.PENDING.value
_KINDS: Final = notifying_kinds()
_MARKS: Final = ", ".join("?" * len(_KINDS))
# Names are constants of this module; every value is bound.
_UNPLANNED: Final = (
    f"SELECT {queries.AUDIT_COLUMNS} FROM audit WHERE id > ? AND id <= ?"  # noqa: S608
    f" AND (alert = 1 OR kind IN ({_MARKS})) ORDER BY id"
)
_WAITING: Final = (
    "SELECT chain.writer, coalesce(planned.seq, 0), chain.seq FROM audit_chains AS chain"
    " LEFT JOIN notification_cursors AS planned ON planned.writer = chain.writer"
    " WHERE chain.seq > coalesce(planned.seq, 0) AND EXISTS (SELECT 1 FROM notification_cursors)"
    " ORDER BY chain.writer"
)
_TIMES: Final = "SELECT id, at FROM audit WHERE id > ? AND id <= ? ORDER BY id"
_SET_CURSOR: Final = (
    "INSERT INTO notification_cursors (writer, seq) VALUES (?, ?)"
    " ON CONFLICT (writer) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > notification_cursors.seq"
)
_PUT_THREAD: Final = (
    "INSERT INTO notification_threads (sink, thread, case_id, told_at, severity, is_open, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sink, thread) DO UPDATE SET case_id = excluded.case_id,"
    " told_at = excluded.told_at, severity = excluded.severity, is_open = excluded.is_open, body = excluded.body"
)
_PUT: Final = (
    "INSERT INTO notification_deliveries"
    " (key, sink, case_id, severity, state, due, attempts, queued_at, ended_at, trouble, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    # It is there: a message about many that grew.
    " ON CONFLICT (key) DO UPDATE SET body = excluded.body, severity = excluded.severity"
    " WHERE notification_deliveries.attempts = 0 AND notification_deliveries.state = 'pending'"
)
_COLUMNS: Final = "seq, key, sink, state, due, attempts, queued_at, ended_at, trouble, body, case_id"
_DUE: Final = (
    "SELECT key, due, attempts, queued_at, trouble, body FROM notification_deliveries"
    " WHERE sink = ? AND state = 'pending' AND due <= ? ORDER BY due, seq LIMIT 1"
)
# The least urgent ones go, of these the oldest.
_OVERFLOW: Final = (
    "UPDATE notification_deliveries SET state = 'dropped', ended_at = ?, trouble = 'the queue was full' WHERE seq IN"
    " (SELECT seq FROM notification_deliveries WHERE sink = ? AND state = 'pending' AND attempts = 0"
    " ORDER BY severity, seq LIMIT ?)"
)
_REMINDERS: Final = (
    "SELECT body FROM notification_threads AS thread WHERE is_open = 1 AND severity = 2 AND case_id <> ''"
    " AND told_at < ? AND NOT EXISTS"
    " (SELECT 1 FROM notification_acknowledgements AS done WHERE done.case_id = thread.case_id)"
    " ORDER BY told_at LIMIT ?"
)


class SqlNotificationStore(NotificationStore):
    """`controller.ports.notifications.NotificationStore` in the database of a `SqlStore`."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def sinks(self) -> Sequence[Sink]:
        return await self._store.read(_sinks)

    async def add_sink(self, sink: Sink, most: int, writes: StoreWrites) -> SinkChange:
        return await self._store.change_with(writes, partial(_add_sink, sink=sink, most=most), _is_done)

    async def remove_sink(self, name: str, writes: StoreWrites) -> SinkChange:
        return await self._store.change_with(writes, partial(_remove_sink, name=name), _is_done)

    async def unplanned(self, limit: int) -> tuple[Sequence[StoredAuditEntry], Mapping[int, int]]:
        return await self._store.read(partial(_unplanned, limit=limit))

    async def threads(self, keys: Collection[ThreadKey]) -> dict[ThreadKey, Thread]:
        return await self._store.read(partial(_threads, keys=keys))

    async def acknowledged(self, case_ids: Collection[str]) -> frozenset[str]:
        return await self._store.read(partial(_acknowledged, case_ids=case_ids))

    async def due_reminders(self, told_before: float, limit: int) -> Sequence[Thread]:
        def query(connection: SqlConnection) -> list[Thread]:
            return [_THREAD.load("a thread", body) for (body,) in connection.execute(_REMINDERS, (told_before, limit))]

        return await self._store.read(query)

    async def plan(self, plan: Plan, cursor: Mapping[int, int], most: int, now: float) -> dict[str, int]:
        return await self._store.write(partial(_plan, plan=plan, cursor=cursor, most=most, now=now))

    async def claim(self, sink: str, now: float) -> tuple[Delivery, int] | None:
        return await self._store.write(partial(_claim, sink=sink, now=now))

    async def next_due(self, sink: str) -> float | None:
        return await self._store.read(
            lambda connection: connection.execute(
                "SELECT min(due) FROM notification_deliveries WHERE sink = ? AND state = 'pending'", (sink,)
            ).fetchone()[0]
        )

    async def postpone(self, key: str, due: float, trouble: str) -> None:
        await self._execute("UPDATE notification_deliveries SET due = ?, trouble = ? WHERE key = ?", due, trouble, key)

    async def end(self, key: str, state: DeliveryState, trouble: str, now: float, told: int = 0) -> None:
        def change(connection: SqlConnection) -> None:
            connection.execute(
                "UPDATE notification_deliveries SET state = ?, trouble = ?, ended_at = ? WHERE key = ?",
                (state.value, trouble, now, key),
            )
            # What was told is taken off; what was given up is to be told with the next one.
            lost = 1 if state is DeliveryState.GIVEN_UP else 0
            connection.execute(
                "UPDATE notification_sinks SET dropped = dropped - CASE WHEN dropped < ? THEN dropped ELSE ? END + ?"
                " WHERE name = (SELECT sink FROM notification_deliveries WHERE key = ?)",
                (told, told, lost, key),
            )

        await self._store.write(change)

    async def record_test(self, delivery: Delivery, state: DeliveryState, now: float) -> None:
        row = _row(delivery, now, state=state.value, ended_at=now)
        await self._store.write(lambda connection: connection.execute(_PUT, row).rowcount)

    async def states(self) -> dict[str, SinkState]:
        return await self._store.read(_states)

    async def set_failing(
        self, sink: str, since: float, trouble: str, *, is_alerted: bool, writes: StoreWrites
    ) -> None:
        def change(connection: SqlConnection) -> None:
            connection.execute(
                "UPDATE notification_sinks SET failing_since = ?, trouble = ?, alerted = ? WHERE name = ?",
                (since, trouble, int(is_alerted), sink),
            )

        await self._store.commit_with(writes, change, 1)

    async def acknowledge(self, one: Acknowledgement, writes: StoreWrites) -> None:
        def change(connection: SqlConnection) -> None:
            connection.execute(
                "INSERT INTO notification_acknowledgements VALUES (?, ?, ?, ?) ON CONFLICT (case_id) DO NOTHING",
                (one.case_id, one.by, one.at, one.reason),
            )

        await self._store.commit_with(writes, change, 1)

    async def log(
        self, *, sink: str | None = None, case_id: str | None = None, limit: int = 200, after: int = 0
    ) -> Sequence[LoggedDelivery]:
        most = queries.check_limit(limit)
        return await self._store.read(partial(_log, sink=sink, case_id=case_id, limit=most, after=after))

    async def prune(self, before: float, keep: int) -> int:
        return await self._store.write(partial(_prune, before=before, keep=keep))

    async def _execute(self, statement: str, *values: Any) -> None:
        await self._store.write(lambda connection: connection.execute(statement, values).rowcount)


def _is_done(change: SinkChange) -> bool:
    return change is SinkChange.DONE


def _sinks(connection: SqlConnection) -> list[Sink]:
    rows = connection.execute("SELECT name, body FROM notification_sinks ORDER BY name")
    return [_SINK.load(f"the notification sink {name}", body) for name, body in rows]


def _add_sink(connection: SqlConnection, sink: Sink, most: int) -> SinkChange:
    names = [name for (name,) in connection.execute("SELECT name FROM notification_sinks")]
    if sink.name in names:
        return SinkChange.EXISTS
    if len(names) >= most:
        return SinkChange.TOO_MANY
    if not names:  # nobody wanted to be told of what was recorded so far
        connection.executemany(_SET_CURSOR, [(writer, head.seq) for writer, head in chains(connection).items()])
    connection.execute("INSERT INTO notification_sinks (name, body) VALUES (?, ?)", (sink.name, _SINK.dump(sink)))
    return SinkChange.DONE


def _remove_sink(connection: SqlConnection, name: str) -> SinkChange:
    found = connection.execute("SELECT body FROM notification_sinks WHERE name = ?", (name,)).fetchone()
    if found is None:
        return SinkChange.UNKNOWN
    sink_id = _SINK.load(f"the notification sink {name}", found[0]).sink_id
    connection.execute("DELETE FROM notification_sinks WHERE name = ?", (name,))
    connection.execute("DELETE FROM notification_threads WHERE sink = ?", (sink_id,))
    connection.execute("DELETE FROM notification_deliveries WHERE sink = ?", (name,))
    return SinkChange.DONE


def _unplanned(connection: SqlConnection, limit: int) -> tuple[list[StoredAuditEntry], dict[int, int]]:
    # A writer commits its lines in their order: what is there up to the end of its chain is all there ever is.
    waiting = {writer: (begin, end) for writer, begin, end in connection.execute(_WAITING).fetchall()}
    order: dict[AuditId, int] = {}
    if len(waiting) > 1:
        order, through = _merged(connection, waiting, limit)
    else:
        through = {writer: min(end, begin + limit) for writer, (begin, end) in waiting.items()}
    lines = [
        queries.audit_entry(row)
        for writer, last in through.items()
        for row in connection.execute(
            _UNPLANNED, (AuditId(writer, waiting[writer][0]).key, AuditId(writer, last).key, *_KINDS)
        )
    ]
    return sorted(lines, key=lambda one: order.get(one.id, 0)), through


def _merged(
    connection: SqlConnection, waiting: Mapping[int, tuple[int, int]], limit: int
) -> tuple[dict[AuditId, int], dict[int, int]]:
    """Returns the first lines of all writers with their places by time, and the last one of each writer among them.

    A writer's lines keep their order, also where its clock went back.
    """
    through: dict[int, int] = {}
    timed: list[list[tuple[float, AuditId]]] = []
    for writer, (begin, end) in waiting.items():
        last = min(end, begin + limit)
        rows = connection.execute(_TIMES, (AuditId(writer, begin).key, AuditId(writer, last).key)).fetchall()
        if not rows:  # pruned before they were planned
            through[writer] = last
        latest = accumulate((at for _, at in rows), max)
        timed.append([(at, AuditId.of_key(key)) for at, (key, _) in zip(latest, rows, strict=True)])
    chosen = [line for _, line in islice(merge(*timed), limit)]
    through.update((line.writer, line.seq) for line in chosen)
    return {line: place for place, line in enumerate(chosen)}, through


def _threads(connection: SqlConnection, keys: Collection[ThreadKey]) -> dict[ThreadKey, Thread]:
    found: dict[ThreadKey, Thread] = {}
    for key in keys:
        row = connection.execute("SELECT body FROM notification_threads WHERE sink = ? AND thread = ?", key).fetchone()
        if row is not None:
            found[key] = _THREAD.load(f"the thread {key[1]}", row[0])
    return found


def _acknowledged(connection: SqlConnection, case_ids: Collection[str]) -> frozenset[str]:
    query = "SELECT 1 FROM notification_acknowledgements WHERE case_id = ?"
    return frozenset(one for one in case_ids if connection.execute(query, (one,)).fetchone() is not None)


def _row(
    delivery: Delivery, now: float, *, state: str = _PENDING, ended_at: float = 0.0
) -> tuple[str | int | float, ...]:
    message = delivery.message
    return (
        delivery.key, delivery.sink, message.case_id, int(message.severity), state, delivery.due, delivery.attempts,
        now, ended_at, delivery.trouble, _MESSAGE.dump(message),
    )  # fmt: skip


def _plan(connection: SqlConnection, plan: Plan, cursor: Mapping[int, int], most: int, now: float) -> dict[str, int]:
    connection.executemany(_PUT, [_row(delivery, now) for delivery in plan.deliveries.values()])
    threads = [
        (one.sink, one.key, one.case_id, one.told_at, int(one.severity), int(one.is_open), _THREAD.dump(one))
        for one in plan.threads.values()
    ]
    connection.executemany(_PUT_THREAD, threads)
    connection.executemany(_SET_CURSOR, list(cursor.items()))
    return _drop_excess(connection, {one.sink for one in plan.deliveries.values()}, most, now)


def _drop_excess(connection: SqlConnection, sinks: Collection[str], most: int, now: float) -> dict[str, int]:
    dropped: dict[str, int] = {}
    for sink in sinks:
        query = "SELECT count(*) FROM notification_deliveries WHERE sink = ? AND state = 'pending'"
        excess = connection.execute(query, (sink,)).fetchone()[0] - most
        if excess > 0:
            gone = connection.execute(_OVERFLOW, (now, sink, excess)).rowcount
            connection.execute("UPDATE notification_sinks SET dropped = dropped + ? WHERE name = ?", (gone, sink))
            dropped[sink] = gone
    return dropped


def _claim(connection: SqlConnection, sink: str, now: float) -> tuple[Delivery, int] | None:
    row = connection.execute(_DUE, (sink, now)).fetchone()
    there = connection.execute("SELECT dropped FROM notification_sinks WHERE name = ?", (sink,)).fetchone()
    if row is None or there is None:
        return None
    key, due, attempts, queued_at, trouble, body = row
    message = _MESSAGE.load(f"the notification {key}", body)
    connection.execute("UPDATE notification_deliveries SET attempts = attempts + 1 WHERE key = ?", (key,))
    return Delivery(key, sink, due, message, attempts + 1, trouble, queued_at), there[0]


def _states(connection: SqlConnection) -> dict[str, SinkState]:
    rows = connection.execute(
        "SELECT name, dropped, failing_since, trouble, alerted FROM notification_sinks"
    ).fetchall()
    query = "SELECT sink, count(*) FROM notification_deliveries WHERE state = 'pending' GROUP BY sink"
    waiting = dict(connection.execute(query).fetchall())
    return {
        name: SinkState(waiting.get(name, 0), dropped, since, trouble, bool(told))
        for name, dropped, since, trouble, told in rows
    }


def _log(
    connection: SqlConnection, sink: str | None, case_id: str | None, limit: int, after: int
) -> list[LoggedDelivery]:
    where: list[str] = ["1 = 1"]
    values: list[str | int] = []
    for column, value in (("sink", sink), ("case_id", case_id)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if after:
        where.append("seq < ?")
        values.append(after)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM notification_deliveries WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?",  # noqa: S608
        (*values, limit),
    ).fetchall()
    return [_logged(connection, row) for row in rows]


def _logged(connection: SqlConnection, row: tuple[Any, ...]) -> LoggedDelivery:
    seq, key, sink, state, due, attempts, queued_at, ended_at, trouble, body, case_id = row
    message = _MESSAGE.load(f"the notification {key}", body)
    delivery = Delivery(key, sink, due, message, attempts, trouble, queued_at)
    query = "SELECT case_id, by, at, reason FROM notification_acknowledgements WHERE case_id = ?"
    found = connection.execute(query, (case_id,)).fetchone() if case_id else None
    who = None if found is None else Acknowledgement(*found)
    return LoggedDelivery(seq, delivery, DeliveryState(state), ended_at, who)


def _prune(connection: SqlConnection, before: float, keep: int) -> int:
    gone = connection.execute(
        "DELETE FROM notification_deliveries WHERE state <> 'pending' AND (ended_at < ? OR seq <="
        " (SELECT seq FROM notification_deliveries ORDER BY seq DESC LIMIT 1 OFFSET ?))",
        (before, keep),
    ).rowcount
    # Threads that are open but hear nothing for so long are of cases that ended without a line about it.
    gone += connection.execute("DELETE FROM notification_threads WHERE told_at < ?", (before,)).rowcount
    gone += connection.execute(
        "DELETE FROM notification_acknowledgements WHERE at < ? AND case_id NOT IN"
        " (SELECT case_id FROM notification_threads WHERE is_open = 1)",
        (before,),
    ).rowcount
    return gone
