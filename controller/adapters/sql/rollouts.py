"""Rollouts: a row for each rollout and for each of its devices, in the store's database."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from controller.adapters.sql.codec import JsonCodec
from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.domain.rollout.model import Rollout, RolloutMember, RolloutState
from controller.ports.errors import UnknownRowError
from controller.ports.rollouts import RolloutStore
from controller.ports.store import StoreWrites

_ENDS: Final = ", ".join(f"'{state.value}'" for state in RolloutState if state.is_end)
_ROLLOUT: Final = JsonCodec(Rollout)
_MEMBER: Final = JsonCodec(RolloutMember, ("device_id", "ring", "state"))
_PUT_ROLLOUT: Final = (
    "INSERT INTO rollouts (number, rollout_id, name, state, created_at, body) VALUES (?, ?, ?, ?, ?, ?)"
)
_CHANGE_ROLLOUT: Final = "UPDATE rollouts SET state = ?, body = ? WHERE rollout_id = ?"
_PUT_MEMBER: Final = (
    "INSERT INTO rollout_members (rollout_id, device_id, ring, state, body) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (rollout_id, device_id) DO UPDATE SET state = excluded.state, body = excluded.body"
)
_PREFIX: Final = "r-"
_MAX_ROWS: Final = 2**31 - 1  # no limit


class SqlRolloutStore(RolloutStore):
    """`controller.ports.rollouts.RolloutStore` in the database of a `SqlStore`."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def create(self, rollout: Rollout, members: Sequence[RolloutMember], writes: StoreWrites) -> None:
        number = int(rollout.rollout_id.removeprefix(_PREFIX))
        state, body = rollout.state.value, _ROLLOUT.dump(rollout)
        row = (number, rollout.rollout_id, rollout.target.name, state, rollout.created_at, body)
        rows = _member_rows(rollout, members)

        def change(connection: SqlConnection) -> None:
            connection.execute(_PUT_ROLLOUT, row)
            connection.executemany(_PUT_MEMBER, rows)

        await self._store.commit_with(writes, change, len(rows) + 1)

    async def keep(self, rollout: Rollout, members: Sequence[RolloutMember], writes: StoreWrites) -> None:
        row = (rollout.state.value, _ROLLOUT.dump(rollout), rollout.rollout_id)
        rows = _member_rows(rollout, members)

        def change(connection: SqlConnection) -> None:
            connection.execute(_CHANGE_ROLLOUT, row)
            connection.executemany(_PUT_MEMBER, rows)

        await self._store.commit_with(writes, change, len(rows) + 1)

    def id_of(self, number: int) -> str:
        return f"{_PREFIX}{number:04d}"

    async def next_number(self) -> int:
        return await self._store.read(_next_number)

    async def rollout(self, rollout_id: str) -> Rollout | None:
        found = await self._store.read(partial(_rollouts, where="rollout_id = ?", values=(rollout_id,), limit=1))
        return found[0] if found else None

    async def rollouts(
        self, *, limit: int, is_open: bool = False, name: str | None = None, after: str | None = None
    ) -> Sequence[Rollout]:
        where, values = [f"state NOT IN ({_ENDS})" if is_open else "1 = 1"], list[str]()
        if name is not None:
            where.append("name = ?")
            values.append(name)
        if after is not None:
            if await self.rollout(after) is None:
                raise UnknownRowError(after)
            where.append("number < (SELECT number FROM rollouts WHERE rollout_id = ?)")
            values.append(after)
        condition = " AND ".join(where)
        return await self._store.read(partial(_rollouts, where=condition, values=tuple(values), limit=limit))

    async def unfinished_rollouts(self, *, limit: int) -> Sequence[Rollout]:
        says = self._store.dialect
        # Of devices that only say that they do not have the version; a later rollout of the name decides for them.
        last = "number = (SELECT max(number) FROM rollouts AS other WHERE other.name = rollouts.name)"
        may_have_reverts = f"{says.is_reverting} AND {last} AND {says.failed_rings}"
        where = f"(state NOT IN ({_ENDS}) OR {says.open_reverts} OR ({may_have_reverts}))"
        return await self._store.read(partial(_rollouts, where=where, values=(), limit=limit))

    async def members(
        self,
        rollout_id: str,
        *,
        state: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        after: str | None = None,
    ) -> Sequence[RolloutMember]:
        where, values = ["rollout_id = ?"], list[Any]([rollout_id])
        if state is not None:
            where.append("state = ?")
            values.append(state)

        def query(connection: SqlConnection) -> list[RolloutMember]:
            if after is not None:
                where.append("(ring, device_id) > (?, ?)")
                values.extend((_ring_of(connection, rollout_id, after), after))
            return _members(connection, " AND ".join(where), (*values, _MAX_ROWS if limit is None else limit, offset))

        return await self._store.read(query)


def _ring_of(connection: SqlConnection, rollout_id: str, device_id: str) -> int:
    text = "SELECT ring FROM rollout_members WHERE rollout_id = ? AND device_id = ?"
    row = connection.execute(text, (rollout_id, device_id)).fetchone()
    if row is None:
        raise UnknownRowError(device_id)
    return int(row[0])


def _member_rows(rollout: Rollout, members: Sequence[RolloutMember]) -> list[tuple[Any, ...]]:
    return [(rollout.rollout_id, one.device_id, one.ring, one.state.value, _MEMBER.dump(one)) for one in members]


def _next_number(connection: SqlConnection) -> int:
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM rollouts").fetchone()
    return int(last) + 1


def _rollouts(connection: SqlConnection, *, where: str, values: tuple[str, ...], limit: int) -> list[Rollout]:
    rows = connection.execute(
        f"SELECT body FROM rollouts WHERE {where} ORDER BY number DESC LIMIT ?",  # noqa: S608 - values are bound
        (*values, limit),
    )
    return [_ROLLOUT.load("a rollout", body) for (body,) in rows]


def _members(connection: SqlConnection, where: str, values: tuple[Any, ...]) -> list[RolloutMember]:
    rows = connection.execute(
        f"SELECT device_id, ring, state, body FROM rollout_members WHERE {where}"  # noqa: S608 - values are bound
        " ORDER BY ring, device_id LIMIT ? OFFSET ?",
        values,
    )
    return [
        _MEMBER.load(f"the device {device_id} of a rollout", body, device_id=device_id, ring=ring, state=state)
        for device_id, ring, state, body in rows
    ]
