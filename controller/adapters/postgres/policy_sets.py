"""The policies in force of all controllers, in the database."""

from typing import Any, Final

from controller.adapters.sql import codec
from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.guard_state import POLICIES, PUT_META
from controller.adapters.sql.store import SqlStore
from controller.ports.policies import PolicySetStore, StoredPolicySet

_SET: Final = "policy set"  # key in `meta`
_BODY: Final = codec.JsonCodec(StoredPolicySet)
# Every commit compares its epoch with this one.
_EPOCH: Final = "SELECT policy_epoch FROM fleet"
# Ends what others are committing: a transaction begins with its writer's row, then it reads the epoch.
_ALONE: Final = "SELECT writer FROM writers WHERE NOT fenced ORDER BY writer FOR UPDATE"
_RAISE: Final = "UPDATE fleet SET policy_epoch = ? WHERE policy_epoch = ?"


class PostgresPolicySets(PolicySetStore):
    """The set is a row of `meta`, its epoch is in `fleet`."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def epoch(self) -> int:
        return await self._store.read(lambda connection: int(connection.execute(_EPOCH).fetchone()[0]))

    async def present(self) -> StoredPolicySet:
        row: Any = await self._store.read(
            lambda connection: connection.execute("SELECT value FROM meta WHERE key = ?", (_SET,)).fetchone()
        )
        return StoredPolicySet(0) if row is None else _BODY.load("the policies in force", row[0])

    async def replace(self, fresh: StoredPolicySet) -> bool:
        body = _BODY.dump(fresh)

        def change(connection: SqlConnection) -> bool:
            connection.execute(_ALONE)
            if connection.execute(_RAISE, (fresh.epoch, fresh.epoch - 1)).rowcount != 1:
                return False
            connection.execute(PUT_META, (_SET, body))
            connection.execute(PUT_META, (POLICIES, fresh.version))
            return True

        return await self._store.write(change)
