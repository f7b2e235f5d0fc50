"""The broker's settings from before the setup, in the store's database."""

from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.ports.broker_setup import SavedSetup, SetupStore


class SqlSetupStore(SetupStore):
    """The settings in the store's database."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def kept(self) -> SavedSetup | None:
        def query(connection: SqlConnection) -> SavedSetup | None:
            row = connection.execute(
                "SELECT at, before, client_id, deny_unmatched, undoing FROM broker_setup"
            ).fetchone()
            return None if row is None else SavedSetup(row[0], row[1], *map(bool, row[2:]))

        return await self._store.read(query)

    async def keep(self, setup: SavedSetup) -> None:
        values = (setup.at, setup.before, int(setup.client_id_from_certificate), int(setup.deny_unmatched))

        def change(connection: SqlConnection) -> None:
            connection.execute(
                "INSERT INTO broker_setup (one, at, before, client_id, deny_unmatched) VALUES (1, ?, ?, ?, ?)"
                " ON CONFLICT (one) DO UPDATE SET"
                " client_id = CASE WHEN excluded.client_id = 1 THEN 1 ELSE broker_setup.client_id END, undoing = 0,"
                " deny_unmatched = CASE WHEN excluded.deny_unmatched = 1 THEN 1 ELSE broker_setup.deny_unmatched END",
                values,
            )

        await self._store.write(change)

    async def begin_undo(self) -> None:
        await self._store.write(lambda connection: connection.execute("UPDATE broker_setup SET undoing = 1"))

    async def forget(self) -> None:
        await self._store.write(lambda connection: connection.execute("DELETE FROM broker_setup"))
