"""Templates, rules written for devices, and grants, in the store's database."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.domain.broker.access import AccessGrant, CompiledRules, TopicRule, digest_of
from controller.ports.access import AccessStore, GrantRecord, StoredTemplates, WrittenRules
from controller.ports.errors import StoreError

_AT_ONCE: Final = 1000  # rows of one statement list


class SqlAccessStore(AccessStore):
    """`controller.ports.access.AccessStore` in the store's database."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def templates(self) -> StoredTemplates | None:
        def query(db: SqlConnection) -> StoredTemplates | None:
            row = db.execute("SELECT body, at, actor FROM access_templates").fetchone()
            return None if row is None else StoredTemplates(*row)

        return await self._store.read(query)

    async def put_templates(self, kept: StoredTemplates) -> None:
        await self._store.write(
            lambda db: db.execute(
                "INSERT INTO access_templates (one, at, actor, body) VALUES (1, ?, ?, ?)"
                " ON CONFLICT (one) DO UPDATE SET at = excluded.at, actor = excluded.actor, body = excluded.body",
                (kept.at, kept.actor, kept.text),
            )
        )

    async def drop_templates(self) -> None:
        await self._store.write(lambda db: db.execute("DELETE FROM access_templates"))

    async def written(self, device_ids: Sequence[str] | None = None) -> Mapping[str, WrittenRules]:
        if device_ids is None:
            return await self._store.read(_written)
        return await self._store.read(partial(_written_of, device_ids=tuple(device_ids)))

    async def begin(self, rows: Mapping[str, WrittenRules]) -> None:
        sets: dict[str, str] = {}
        values: list[tuple[str, str, str]] = []
        for device_id, one in rows.items():
            digest, previous = digest_of(one.rules), digest_of(one.previous)
            sets[digest] = _dump(one.rules)
            if one.previous is not None:
                sets[previous] = _dump(one.previous)
            values.append((device_id, digest, previous))

        def change(db: SqlConnection) -> None:
            db.executemany("INSERT INTO access_sets VALUES (?, ?) ON CONFLICT DO NOTHING", list(sets.items()))
            db.executemany(
                "INSERT INTO access_rules (device_id, digest, previous, written) VALUES (?, ?, ?, 0)"
                " ON CONFLICT (device_id) DO UPDATE SET digest = excluded.digest, previous = excluded.previous,"
                " written = 0",
                values,
            )

        await self._store.write(change)

    async def done(self, device_ids: Sequence[str]) -> None:
        await self._each("UPDATE access_rules SET written = 1, previous = '' WHERE device_id = ?", device_ids)

    async def forget(self, device_ids: Sequence[str]) -> None:
        await self._each("DELETE FROM access_rules WHERE device_id = ?", device_ids)

    async def open_grants(self, device_id: str | None = None) -> Sequence[AccessGrant]:
        def query(db: SqlConnection) -> list[AccessGrant]:
            of, values = ("", ()) if device_id is None else (" AND device_id = ?", (device_id,))
            rows = db.execute(f"SELECT body FROM access_grants WHERE ended_at IS NULL{of}", values)  # noqa: S608 - bound
            return [_grant(body) for (body,) in rows]

        return await self._store.read(query)

    async def put_grant(self, grant: AccessGrant) -> None:
        values = (grant.grant_id, grant.device_id, grant.expires_at, json.dumps(asdict(grant)))
        await self._store.write(
            lambda db: db.execute(
                "INSERT INTO access_grants (grant_id, device_id, expires_at, body) VALUES (?, ?, ?, ?)", values
            )
        )

    async def end_grants(self, grant_ids: Sequence[str], at: float) -> None:
        values = [(at, one) for one in grant_ids]
        statement = "UPDATE access_grants SET ended_at = ? WHERE grant_id = ? AND ended_at IS NULL"
        await self._store.write(lambda db: db.executemany(statement, values))

    async def grants(self, *, device_id: str | None = None, limit: int = 200) -> Sequence[GrantRecord]:
        def query(db: SqlConnection) -> list[GrantRecord]:
            where, values = ("", ()) if device_id is None else ("WHERE device_id = ?", (device_id,))
            listed = f"SELECT body, ended_at FROM access_grants {where} ORDER BY rowid DESC LIMIT ?"  # noqa: S608 - bound
            rows = db.execute(listed, (*values, limit))
            return [GrantRecord(_grant(body), ended_at) for body, ended_at in rows]

        return await self._store.read(query)

    async def _each(self, statement: str, device_ids: Sequence[str]) -> None:
        for first in range(0, len(device_ids), _AT_ONCE):
            values = [(one,) for one in device_ids[first : first + _AT_ONCE]]
            await self._store.write(partial(_many, statement=statement, values=values))


def _many(db: SqlConnection, *, statement: str, values: list[tuple[str]]) -> None:
    db.executemany(statement, values)


def _written_of(db: SqlConnection, *, device_ids: tuple[str, ...]) -> Mapping[str, WrittenRules]:
    found: dict[str, WrittenRules] = {}
    for device_id in device_ids:
        row = db.execute(
            "SELECT now.rules, before.rules, one.written FROM access_rules AS one"
            " JOIN access_sets AS now ON now.digest = one.digest"
            " LEFT JOIN access_sets AS before ON before.digest = one.previous WHERE one.device_id = ?",
            (device_id,),
        ).fetchone()
        if row is not None:
            found[device_id] = WrittenRules(_load(row[0]), None if row[1] is None else _load(row[1]), bool(row[2]))
    return found


def _written(db: SqlConnection) -> Mapping[str, WrittenRules]:
    sets = {digest: _load(rules) for digest, rules in db.execute("SELECT digest, rules FROM access_sets")}
    found: dict[str, WrittenRules] = {}
    for device_id, digest, previous, done in db.execute(
        "SELECT device_id, digest, previous, written FROM access_rules"
    ):
        if digest not in sets:
            raise StoreError(f"the rules written for {device_id} are not in the store any more")
        found[device_id] = WrittenRules(sets[digest], sets.get(previous), bool(done))
    return found


def _dump(rules: CompiledRules) -> str:
    return json.dumps([asdict(rule) for rule in rules])


def _load(text: str) -> CompiledRules:
    try:
        return tuple(TopicRule(**{**row, "qos": tuple(row["qos"])}) for row in json.loads(text))
    except (ValueError, TypeError, KeyError) as e:
        raise StoreError("a set of access rules in the store cannot be read") from e


def _grant(body: str) -> AccessGrant:
    try:
        raw: dict[str, Any] = json.loads(body)
        return AccessGrant(**raw)
    except (ValueError, TypeError) as e:
        raise StoreError("a grant in the store cannot be read") from e
