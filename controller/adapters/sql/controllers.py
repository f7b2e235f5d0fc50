"""What controllers tell each other of themselves, in the store's database."""

from collections.abc import Sequence
from typing import Final

from controller.adapters.sql import codec, meta
from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.ports.controllers import ControllerBook, ControllerRecord, Page, PresencePages

_KEY: Final = "controller "  # begins the keys in `meta`
_RECORD: Final = codec.JsonCodec(ControllerRecord)


def presence_pages(store: SqlStore) -> PresencePages:
    """Returns what is known of devices' connections, page by page."""

    async def page(after: str, limit: int) -> Page:
        text = "SELECT device_id, online FROM devices WHERE device_id > ? ORDER BY device_id LIMIT ?"
        rows = await store.read(lambda connection: connection.execute(text, (after, limit)).fetchall())
        return [(device_id, None if online is None else bool(online)) for device_id, online in rows]

    return page


class SqlControllerBook(ControllerBook):
    """Rows of `meta`: their number is that of the controllers."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def put(self, record: ControllerRecord, forget_before: float) -> None:
        def change(connection: SqlConnection) -> None:
            for one in _records(connection):
                if one.seen_at < forget_before and one.name != record.name:
                    connection.execute("DELETE FROM meta WHERE key = ?", (_KEY + one.name,))
            meta.put(connection, _KEY + record.name, _RECORD.dump(record))

        await self._store.write(change)

    async def records(self) -> Sequence[ControllerRecord]:
        return await self._store.read(_records)


def _records(connection: SqlConnection) -> list[ControllerRecord]:
    rows = connection.execute("SELECT value FROM meta WHERE key >= ? AND key < ? ORDER BY key", (_KEY, _KEY[:-1] + "!"))
    return [_RECORD.load("a controller", value) for (value,) in rows.fetchall()]
