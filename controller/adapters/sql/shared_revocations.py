"""Revocation lists and recent revocations, for every controller on one database."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Final

from controller.adapters.sql import meta
from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.ports.certificates import PublishedCrl, SharedRevocations

_KEY: Final = "revocation list "  # begins the keys in `meta`; the issuer follows


class SqlSharedRevocations(SharedRevocations):
    """Lists are rows of `meta`; their numbers, which tell whether one is new, are in `crl_numbers`."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def put_list(self, number: int, published: PublishedCrl) -> None:
        value = json.dumps({"number": number, "next_update": published.next_update, "pem": published.pem.decode()})

        def change(connection: SqlConnection) -> None:
            # What waits for this row sees a list that was stored meanwhile.
            connection.execute("UPDATE crl_numbers SET number = number WHERE issuer = ?", (published.name,))
            found = _find(connection, published.name)
            if found is None or found[0] < number:
                meta.put(connection, _KEY + published.name, value)

        await self._store.write(change)

    async def lists(self, known: Mapping[str, int]) -> Sequence[tuple[int, PublishedCrl]]:
        def query(connection: SqlConnection) -> list[tuple[int, PublishedCrl]]:
            found = []
            for issuer, number in connection.execute("SELECT issuer, number FROM crl_numbers").fetchall():
                stored = _find(connection, issuer) if number > known.get(issuer, 0) else None
                if stored is not None and stored[0] > known.get(issuer, 0):
                    found.append(stored)
            return found

        return await self._store.read(query)

    async def revoked_since(self, at: float) -> Sequence[tuple[str, str]]:
        text = "SELECT serial, name FROM certificates WHERE revoked_at IS NOT NULL AND revoked_at > ?"
        return await self._store.read(lambda connection: [(row[0], row[1]) for row in connection.execute(text, (at,))])


def _find(connection: SqlConnection, issuer: str) -> tuple[int, PublishedCrl] | None:
    value = meta.get(connection, _KEY + issuer)
    if value is None:
        return None
    found = json.loads(value)
    pem: str = found["pem"]
    der = base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-----")))
    return int(found["number"]), PublishedCrl(issuer, der, pem.encode(), float(found["next_update"]))
