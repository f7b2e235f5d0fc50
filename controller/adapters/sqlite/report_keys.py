"""The keys by which devices sign their reports, on SQLite: of certificates, and of a first proven contact."""

import sqlite3
from collections.abc import Mapping

from cryptography import x509

from controller.adapters.sqlite.store import SqliteStore
from controller.ports.certificates import Registry
from schemas.report_signing import PublicKey, name_of, public_bytes, read_public


class SqliteReportKeys:
    """`KeyBook`; `registry` is absent where Cordon issues no certificates."""

    def __init__(self, store: SqliteStore, registry: Registry | None) -> None:
        self._store = store
        self._registry = registry

    async def certified(self, device_id: str, now: float) -> Mapping[str, PublicKey] | None:
        """See `KeyBook`."""
        found = () if self._registry is None else await self._registry.of(device_id)
        if not found:
            return None
        keys: dict[str, PublicKey] = {}
        for one in found:
            if one.holds(now):
                public = x509.load_pem_x509_certificate(one.pem.encode()).public_key()
                key = read_public(public_bytes(public))  # type: ignore[arg-type]  # other kinds are refused there
                keys[name_of(key)] = key
        return keys

    async def registered(self, device_id: str) -> bytes | None:
        """See `KeyBook`."""

        def query(db: sqlite3.Connection) -> bytes | None:
            row = db.execute("SELECT key FROM report_keys WHERE device_id = ?", (device_id,)).fetchone()
            return None if row is None else bytes(row[0])

        return await self._store.read(query)

    async def register(self, device_id: str, key: bytes, at: float) -> None:
        """See `KeyBook`."""
        await self._store.write(
            lambda db: db.execute("INSERT OR REPLACE INTO report_keys VALUES (?, ?, ?)", (device_id, key, at)).rowcount
        )

    async def forget(self, device_id: str) -> bool:
        """See `KeyBook`."""
        gone = await self._store.write(
            lambda db: db.execute("DELETE FROM report_keys WHERE device_id = ?", (device_id,)).rowcount
        )
        return gone > 0
