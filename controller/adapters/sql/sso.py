"""With which configuration of single sign-on somebody came in last."""

from typing import Final

from controller.adapters.sql import meta
from controller.adapters.sql.store import SqlStore
from controller.ports.accounts import SsoTrials

_TRIED: Final = "accounts.sso_tried"  # key in `meta`


class SqlSsoTrials(SsoTrials):
    """`controller.ports.accounts.SsoTrials` in the database of the store."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def tried_configuration(self) -> str:
        return await self._store.read(lambda connection: meta.get(connection, _TRIED)) or ""

    async def note_tried(self, configuration: str) -> None:
        await self._store.write(lambda connection: meta.put(connection, _TRIED, configuration))
