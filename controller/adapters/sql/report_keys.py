"""Report-signing keys of devices: of certificates, and of a first authenticated contact."""

from typing import Final

from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.ports.certificates import CertificateRegistry
from controller.ports.device_keys import SUPERSEDED, CertifiedKeys
from schemas.pem import read_certificate
from schemas.report_signing import PublicKey, load_public_key, public_key_der, report_key_id

_PUT: Final = (
    "INSERT INTO report_keys (device_id, key, at) VALUES (?, ?, ?)"
    " ON CONFLICT (device_id) DO UPDATE SET key = excluded.key, at = excluded.at"
)


class SqlReportKeys:
    """`KeyBook`; `registry` is absent where Cordon issues no certificates."""

    def __init__(self, store: SqlStore, registry: CertificateRegistry | None) -> None:
        self._store = store
        self._registry = registry

    async def certified(self, device_id: str, now: float) -> CertifiedKeys | None:
        held = () if self._registry is None else await self._registry.of(device_id)
        found = [one for one in held if one.kind is CertificateKind.CLIENT]
        if not found:
            return None
        last = await self.registered(device_id)
        signed_last = "" if last is None else report_key_id(load_public_key(last))
        # Of a device whose last signature is by another key than any of these, nothing is former yet.
        former = next((at for at, one in enumerate(found) if one.key == signed_last), 0)
        keys: dict[str, PublicKey] = {}
        over: dict[str, str] = {}
        for at, one in enumerate(found):
            why = _over(one, now) or (SUPERSEDED if at < former else "")
            if why:
                over[one.key] = why
                continue
            public = read_certificate(one.pem).public_key()
            key = load_public_key(public_key_der(public))  # type: ignore[arg-type]  # other kinds are refused there
            keys[report_key_id(key)] = key
        return CertifiedKeys(keys, over)

    async def owner(self, keyid: str) -> str | None:
        found = None if self._registry is None else await self._registry.by_key(keyid)
        return None if found is None else found.name

    async def registered(self, device_id: str) -> bytes | None:
        def query(db: SqlConnection) -> bytes | None:
            row = db.execute("SELECT key FROM report_keys WHERE device_id = ?", (device_id,)).fetchone()
            return None if row is None else bytes(row[0])

        return await self._store.read(query)

    async def register(self, device_id: str, key: bytes, at: float) -> None:
        await self._store.write(lambda db: db.execute(_PUT, (device_id, key, at)).rowcount)

    async def forget(self, device_id: str) -> bool:
        gone = await self._store.write(
            lambda db: db.execute("DELETE FROM report_keys WHERE device_id = ?", (device_id,)).rowcount
        )
        return gone > 0


def _over(one: Certificate, now: float) -> str:
    if one.revoked_at is not None:
        return "it is revoked"
    return "" if one.is_valid(now) else "it has expired"
