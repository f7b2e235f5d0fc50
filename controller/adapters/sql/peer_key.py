"""The key by which the controllers of a store know each other's requests."""

import secrets
from typing import Final

from controller.adapters.sql import meta
from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore

_NAME: Final = "peer_key"  # key in `meta`
_BYTES: Final = 32


async def peer_key(store: SqlStore) -> bytes:
    """Returns the key, which the first controller to ask for it makes.

    Raises:
        StoreError: it could not be read or made.
    """

    def read(db: SqlConnection) -> str:
        return meta.get(db, _NAME) or ""

    def make(db: SqlConnection) -> str:
        values = (_NAME, secrets.token_hex(_BYTES))
        db.execute("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", values)
        return read(db)

    return bytes.fromhex(await store.read(read) or await store.write(make))
