"""The policies in force of all controllers, in the database."""

from typing import Final

from controller.adapters.sql import codec, guard_state, meta
from controller.adapters.sql.connection import SqlConnection
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
        body = await self._store.read(lambda connection: meta.get(connection, _SET))
        return StoredPolicySet(0) if body is None else _BODY.load("the policies in force", body)

    async def replace(self, fresh: StoredPolicySet) -> bool:
        body = _BODY.dump(fresh)

        def change(connection: SqlConnection) -> bool:
            connection.execute(_ALONE)
            if connection.execute(_RAISE, (fresh.epoch, fresh.epoch - 1)).rowcount != 1:
                return False
            meta.put(connection, _SET, body)
            guard_state.accept_policies(connection, fresh.version)
            return True

        return await self._store.write(change)
