"""The registry of certificates and enrolment tokens, in the store's database."""

from collections.abc import Sequence
from typing import Any, Final

from controller.adapters.sql.connection import SqlConnection
from controller.adapters.sql.store import SqlStore
from controller.domain.identity.certificates import Certificate, CertificateKind, RevocationStatus
from controller.domain.identity.enrolment import EnrolmentToken, check_enrolment
from controller.ports.certificates import CertificateConflictError, CertificateRegistry, EnrolmentResult, RenewalRefusal
from controller.ports.errors import StoreError, UnknownRowError

_COLUMNS: Final = "serial, issuer, kind, name, start_at, end_at, issued_at, origin, key, pem, revoked_at, reason"
_TOKEN: Final = "token_id, digest, uses_left, created_at, expires_at, made_by, device_class, device_id, replaces, ids"  # noqa: S105 - columns
_SELECT: Final = f"SELECT {_COLUMNS} FROM certificates"  # noqa: S608 - constants
_SELECT_TOKEN: Final = f"SELECT {_TOKEN} FROM enrolment_tokens"  # noqa: S608 - constants
_INSERT: Final = f"INSERT INTO certificates ({_COLUMNS}, recorded) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,0)"  # noqa: S608 - constants
_INSERT_TOKEN: Final = f"INSERT INTO enrolment_tokens ({_TOKEN}) VALUES (?,?,?,?,?,?,?,?,?,?)"  # noqa: S608 - constants
_PRUNE_ROWS: Final = 1000
_MAX_NUMBER: Final = 2**63 - 1  # a list's number may be larger: then only its freshness counts


class SqlCertificateRegistry(CertificateRegistry):
    """`controller.ports.certificates.Registry` in the store's database."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def add(self, *certificates: Certificate) -> None:
        def change(db: SqlConnection) -> str:
            for number, one in enumerate(certificates):
                others = (*certificates[:number], *_alike(db, one))
                conflict = next((text for other in others if (text := _conflict(one, other))), "")
                if conflict:
                    return conflict
            for one in certificates:
                _add(db, one)
            return ""

        conflict = await self._store.write(change)
        if conflict:
            raise CertificateConflictError(conflict)

    async def find(self, serial: str) -> Certificate | None:
        return await self._store.read(lambda db: _one(db, f"{_SELECT} WHERE serial = ?", (serial,)))

    async def of(self, name: str) -> tuple[Certificate, ...]:
        return await self._store.read(lambda db: _of(db, name))

    async def by_key(self, key: str) -> Certificate | None:
        text = f"{_SELECT} WHERE key = ? ORDER BY issued_at DESC LIMIT 1"
        return await self._store.read(lambda db: _one(db, text, (key,)))

    async def certificates(
        self,
        *,
        name: str | None = None,
        good_at: float | None = None,
        limit: int = 200,
        offset: int = 0,
        after: str | None = None,
    ) -> tuple[Sequence[Certificate], int]:
        where, values = ["1 = 1"], list[Any]()
        if name is not None:
            where.append("name = ?")
            values.append(name)
        if good_at is not None:
            where.append("revoked_at IS NULL AND end_at > ?")
            values.append(good_at)
        condition = " AND ".join(where)

        def query(db: SqlConnection) -> tuple[Sequence[Certificate], int]:
            rest, key = "", list[Any]()
            if after is not None:
                rest, key = " AND (-issued_at, serial) > (?, ?)", [-_issued_at(db, after), after]
            page = f"{_SELECT} WHERE {condition}{rest} ORDER BY issued_at DESC, serial LIMIT ? OFFSET ?"
            rows = db.execute(page, (*values, *key, limit, offset))
            found = [_certificate(row) for row in rows]
            (total,) = db.execute(f"SELECT count(*) FROM certificates WHERE {condition}", values).fetchone()  # noqa: S608 - constants
            return found, total

        return await self._store.read(query)

    async def revoke(self, serials: Sequence[str], at: float, reason: str) -> Sequence[Certificate]:
        return await self._store.write(lambda db: _revoke(db, serials, at, reason))

    async def revoke_of(self, name: str, at: float, reason: str) -> Sequence[Certificate]:
        def change(db: SqlConnection) -> list[Certificate]:
            valid = [one.serial for one in _of(db, name) if one.is_valid(at)]
            return _revoke(db, valid, at, reason)

        return await self._store.write(change)

    async def revoked(self, issuer: str, after: float) -> Sequence[Certificate]:
        text = f"{_SELECT} WHERE revoked_at IS NOT NULL AND issuer = ? AND end_at > ? ORDER BY revoked_at"
        return await self._store.read(lambda db: [_certificate(row) for row in db.execute(text, (issuer, after))])

    async def all_revoked(self) -> Sequence[Certificate]:
        text = f"{_SELECT} WHERE revoked_at IS NOT NULL"
        return await self._store.read(lambda db: [_certificate(row) for row in db.execute(text)])

    async def restore_revoked(self, certificates: Sequence[Certificate]) -> Sequence[Certificate]:
        def change(db: SqlConnection) -> list[Certificate]:
            done = []
            for one in certificates:
                found = _one(db, f"{_SELECT} WHERE serial = ?", (one.serial,))
                if found is not None and found.revoked_at is not None:
                    continue
                _add(db, one)
                marked = "UPDATE certificates SET revoked_at = ?, reason = ? WHERE serial = ?"
                db.execute(marked, (one.revoked_at, one.reason, one.serial))
                done.append(one)
            return done

        return await self._store.write(change)

    async def last_end(self, issuer: str) -> float | None:
        text = "SELECT max(end_at) FROM certificates WHERE issuer = ?"
        return await self._store.read(lambda db: db.execute(text, (issuer,)).fetchone()[0])

    async def standings(self, now: float) -> Sequence[RevocationStatus]:
        text = (
            "SELECT name, max(revoked_at), max(CASE WHEN revoked_at IS NULL AND end_at > ? THEN issued_at END)"
            " FROM certificates WHERE kind = 'client' AND name IN"
            " (SELECT name FROM certificates WHERE revoked_at IS NOT NULL AND kind = 'client') GROUP BY name"
        )
        return await self._store.read(lambda db: [RevocationStatus(*row) for row in db.execute(text, (now,))])

    async def good_among(self, issuer: str, serials: frozenset[str]) -> Sequence[str]:
        """Queries the registry's certificates, not each of a list's many serials."""
        text = "SELECT serial FROM certificates WHERE issuer = ? AND revoked_at IS NULL"
        return await self._store.read(
            lambda db: [serial for (serial,) in db.execute(text, (issuer,)) if serial in serials]
        )

    async def note_list_number(self, name: str, number: int) -> int:
        def change(db: SqlConnection) -> int:
            text = (
                "INSERT INTO crl_numbers (issuer, number) VALUES (?, ?)"
                " ON CONFLICT (issuer) DO UPDATE SET number = CASE WHEN excluded.number > crl_numbers.number"
                " THEN excluded.number ELSE crl_numbers.number END"
            )
            db.execute(text, (f"seen {name}", min(number, _MAX_NUMBER)))
            return int(db.execute("SELECT number FROM crl_numbers WHERE issuer = ?", (f"seen {name}",)).fetchone()[0])

        return await self._store.write(change)

    async def next_crl_number(self, issuer: str, at_least: int) -> int:
        def change(db: SqlConnection) -> int:
            text = (
                "INSERT INTO crl_numbers (issuer, number) VALUES (?, ?)"
                " ON CONFLICT (issuer) DO UPDATE SET number = CASE WHEN excluded.number > crl_numbers.number"
                " THEN excluded.number ELSE crl_numbers.number + 1 END"
            )
            db.execute(text, (issuer, at_least))
            (number,) = db.execute("SELECT number FROM crl_numbers WHERE issuer = ?", (issuer,)).fetchone()
            return int(number)

        return await self._store.write(change)

    async def add_token(self, token: EnrolmentToken, most: int) -> bool:
        def change(db: SqlConnection) -> bool:
            if db.execute("SELECT count(*) FROM enrolment_tokens").fetchone()[0] >= most:
                return False
            db.execute(_INSERT_TOKEN, _token_row(token))
            return True

        return await self._store.write(change)

    async def tokens(self) -> Sequence[EnrolmentToken]:
        text = f"{_SELECT_TOKEN} ORDER BY created_at DESC, token_id"
        return await self._store.read(lambda db: [_token(row) for row in db.execute(text)])

    async def drop_token(self, token_id: str) -> bool:
        text = "DELETE FROM enrolment_tokens WHERE token_id = ?"
        return await self._store.write(lambda db: db.execute(text, (token_id,)).rowcount) > 0

    async def token(self, digest: str) -> EnrolmentToken | None:
        return await self._store.read(lambda db: _token_of(db, digest))

    async def admit(self, digest: str, certificate: Certificate, now: float, *, is_known: bool) -> EnrolmentResult:
        def change(db: SqlConnection) -> EnrolmentResult:
            token = _token_of(db, digest)
            held = _of(db, certificate.name)
            if token is not None:
                for one in held:
                    # The response was lost: the same key and token get the same certificate.
                    if one.key == certificate.key and one.origin == f"token:{token.token_id}" and one.is_valid(now):
                        return EnrolmentResult(one, token=token)
            refusal = check_enrolment(token, certificate.name, held, now, is_known=is_known)
            if refusal is not None or token is None:
                assert refusal is not None
                return EnrolmentResult(None, refusal.code, refusal.message, token)
            if db.execute("SELECT 1 FROM certificates WHERE key = ?", (certificate.key,)).fetchone():
                # Of this device or another: two devices with one key could sign and renew for each other.
                return EnrolmentResult(None, "key_used", "this key had a certificate already: make a new one", token)
            db.execute("UPDATE enrolment_tokens SET uses_left = uses_left - 1 WHERE token_id = ?", (token.token_id,))
            _add(db, certificate)
            return EnrolmentResult(certificate, token=token.with_use())

        return await self._store.write(change)

    async def renew(self, certificate: Certificate, of: str) -> Certificate | RenewalRefusal:
        def change(db: SqlConnection) -> Certificate | RenewalRefusal:
            held = _of(db, certificate.name)
            if not any(one.serial == of and one.is_valid(certificate.issued_at) for one in held):
                return RenewalRefusal.OVER
            for one in held:
                if one.key == certificate.key and one.origin == f"renewal:{of}" and one.revoked_at is None:
                    return one
            others = "SELECT 1 FROM certificates WHERE key = ? AND name <> ?"
            if db.execute(others, (certificate.key, certificate.name)).fetchone():
                return RenewalRefusal.KEY_USED
            _add(db, certificate)
            return certificate

        return await self._store.write(change)

    async def unrecorded(self, limit: int) -> Sequence[Certificate]:
        text = f"{_SELECT} WHERE recorded = 0 LIMIT ?"
        return await self._store.read(lambda db: [_certificate(row) for row in db.execute(text, (limit,))])

    async def mark_recorded(self, serials: Sequence[str]) -> None:
        rows = [(serial,) for serial in serials]
        text = "UPDATE certificates SET recorded = 1 WHERE serial = ?"
        await self._store.write(lambda db: db.executemany(text, rows).rowcount)

    async def expired(self, now: float, limit: int) -> Sequence[tuple[Certificate, bool]]:
        text = (
            f"SELECT {_COLUMNS}, EXISTS (SELECT 1 FROM certificates AS newer WHERE newer.name = old.name"  # noqa: S608 - constants
            " AND newer.kind = 'client' AND newer.issued_at > old.issued_at) FROM certificates AS old"
            " WHERE recorded = 1 AND end_at <= ? ORDER BY end_at LIMIT ?"
        )
        rows = await self._store.read(lambda db: db.execute(text, (now, limit)).fetchall())
        return [(_certificate(tuple(row[:-1])), bool(row[-1])) for row in rows]

    async def mark_expiry_recorded(self, serials: Sequence[str]) -> None:
        rows = [(serial,) for serial in serials]
        text = "UPDATE certificates SET recorded = 2 WHERE serial = ?"
        await self._store.write(lambda db: db.executemany(text, rows).rowcount)

    async def prune(self, before: float) -> int:
        """The last certificate of a name stays, so that its id is not free for another device."""

        def change(db: SqlConnection) -> int:
            text = (
                "DELETE FROM certificates WHERE serial IN (SELECT old.serial FROM certificates AS old"
                " WHERE old.end_at < ? AND EXISTS (SELECT 1 FROM certificates AS newer"
                " WHERE newer.name = old.name AND newer.issued_at > old.issued_at) LIMIT ?)"
            )
            gone = db.execute(text, (before, _PRUNE_ROWS)).rowcount
            return gone + db.execute("DELETE FROM enrolment_tokens WHERE expires_at < ?", (before,)).rowcount

        return await self._store.write(change)


def _add(db: SqlConnection, one: Certificate) -> None:
    row = (
        one.serial, one.issuer, one.kind.value, one.name, one.start, one.end, one.issued_at, one.origin, one.key,
        one.pem, one.revoked_at, one.reason,
    )  # fmt: skip
    db.execute(f"{_INSERT} ON CONFLICT (serial) DO NOTHING", row)


def _alike(db: SqlConnection, one: Certificate) -> list[Certificate]:
    text = f"{_SELECT} WHERE serial = ? OR (key = ? AND name <> ?)"
    return [_certificate(row) for row in db.execute(text, (one.serial, one.key, one.name))]


def _conflict(one: Certificate, other: Certificate) -> str:
    if one.key == other.key and one.name != other.name:
        # Two names with one key could sign and renew for each other.
        return f"{one.name}: its key is in a certificate of {other.name} already ({other.serial}): make a new one"
    if one.serial == other.serial and (one.key, one.issuer) != (other.key, other.issuer):
        return f"{one.name}: another certificate has its serial number {one.serial}: it is of {other.name}"
    return ""


def _of(db: SqlConnection, name: str) -> tuple[Certificate, ...]:
    return tuple(_certificate(row) for row in db.execute(f"{_SELECT} WHERE name = ? ORDER BY issued_at", (name,)))


def _revoke(db: SqlConnection, serials: Sequence[str], at: float, reason: str) -> list[Certificate]:
    """Returns those that were not revoked before."""
    done = []
    for serial in serials:
        marked = "UPDATE certificates SET revoked_at = ?, reason = ? WHERE serial = ? AND revoked_at IS NULL"
        if db.execute(marked, (at, reason, serial)).rowcount:
            found = _one(db, f"{_SELECT} WHERE serial = ?", (serial,))
            assert found is not None
            done.append(found)
    return done


def _one(db: SqlConnection, text: str, values: tuple[Any, ...]) -> Certificate | None:
    row = db.execute(text, values).fetchone()
    return None if row is None else _certificate(row)


def _certificate(row: tuple[Any, ...]) -> Certificate:
    serial, issuer, kind, *more = row
    try:
        return Certificate(serial, issuer, CertificateKind(kind), *more)
    except ValueError as e:
        raise StoreError(f"certificate {serial} is of the unknown kind {kind!r}: written by a newer version") from e


def _token_of(db: SqlConnection, digest: str) -> EnrolmentToken | None:
    row = db.execute(f"{_SELECT_TOKEN} WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else _token(row)


def _token_row(one: EnrolmentToken) -> tuple[Any, ...]:
    return (
        one.token_id, one.digest, one.uses_left, one.created_at, one.expires_at, one.by, one.device_class,
        one.device_id, int(one.replaces), one.ids,
    )  # fmt: skip


def _token(row: tuple[Any, ...]) -> EnrolmentToken:
    token_id, digest, uses_left, created_at, expires_at, by, device_class, device_id, replaces, ids = row
    return EnrolmentToken(
        token_id, digest, uses_left, created_at, expires_at, by, device_class, device_id, bool(replaces), ids
    )


def _issued_at(db: SqlConnection, serial: str) -> float:
    row = db.execute("SELECT issued_at FROM certificates WHERE serial = ?", (serial,)).fetchone()
    if row is None:
        raise UnknownRowError(serial)
    return float(row[0])
