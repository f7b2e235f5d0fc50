"""With which configuration of single sign-on somebody came in last."""

from controller.adapters.sql.store import SqlStore
from controller.ports.accounts import SsoTrials

_TRIED = "SELECT value FROM meta WHERE key = 'accounts.sso_tried'"
_NOTE = (
    "INSERT INTO meta (key, value) VALUES ('accounts.sso_tried', ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


class SqlSsoTrials(SsoTrials):
    """`controller.ports.accounts.SsoTrials` in the database of the store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def tried_configuration(self) -> str:
        row = await self._store.read(lambda connection: connection.execute(_TRIED).fetchone())
        return "" if row is None else str(row[0])

    async def note_tried(self, configuration: str) -> None:
        await self._store.write(lambda connection: connection.execute(_NOTE, (configuration,)))
