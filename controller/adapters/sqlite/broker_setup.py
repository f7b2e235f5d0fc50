"""The broker's settings from before the setup, in the store's file."""

import sqlite3

from controller.adapters.sqlite.store import SqliteStore
from controller.ports.broker_setup import SavedSetup, SetupStore


class SqliteSetupStore(SetupStore):
    """The settings in the store's file."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def kept(self) -> SavedSetup | None:
        def query(connection: sqlite3.Connection) -> SavedSetup | None:
            row = connection.execute(
                "SELECT at, before, client_id, deny_unmatched, undoing FROM broker_setup"
            ).fetchone()
            return None if row is None else SavedSetup(row[0], row[1], *map(bool, row[2:]))

        return await self._store.read(query)

    async def keep(self, setup: SavedSetup) -> None:
        values = (setup.at, setup.before, setup.client_id_from_certificate, setup.deny_unmatched)

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO broker_setup (one, at, before, client_id, deny_unmatched) VALUES (1, ?, ?, ?, ?)"
                " ON CONFLICT (one) DO UPDATE SET client_id = max(client_id, excluded.client_id),"
                " deny_unmatched = max(deny_unmatched, excluded.deny_unmatched), undoing = 0",
                values,
            )

        await self._store.write(change)

    async def begin_undo(self) -> None:
        await self._store.write(lambda connection: connection.execute("UPDATE broker_setup SET undoing = 1"))

    async def forget(self) -> None:
        await self._store.write(lambda connection: connection.execute("DELETE FROM broker_setup"))
