"""A whole store is copied to the other engine and back, and is what it was."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
import sqlite_utils

from controller.adapters.postgres.connection import connect
from controller.adapters.postgres.schema import prepare
from controller.adapters.postgres.store import open_store as open_postgres
from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sql.certificates import SqlCertificateRegistry
from controller.adapters.sql.factors import SqlFactors
from controller.adapters.sql.store import SqlStore
from controller.adapters.sqlite.migrations import migrations
from controller.adapters.sqlite.store import SqliteStore
from controller.adapters.store_copy import TABLES, copy_store
from controller.domain.accounts.account import Account
from controller.domain.accounts.factors import Passkey
from controller.domain.audit_id import AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, CommandRecord, EndIsolation
from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.domain.identity.enrolment import EnrolmentToken
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import StoreError
from controller.ports.store import DeadLetter, StoredReport, StoreWrites
from tests.support.audit_chains import four_chains
from tests.support.fleet_devices import stored_devices
from tests.support.postgres import SERVERS, PostgresServer, PostgresServers, address_of
from tests.support.store import NOW, Logged, opened

pytestmark = pytest.mark.postgres
SECOND = AuditId(1, 2).key


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> PostgresServer:
    return postgres_servers[request.param]


async def fill(store: SqlStore) -> None:
    """A row at least in most tables."""
    devices = tuple(Device(f"d-{n}-\U0001f680", 1.0, 2.0, online=[None, True, False][n % 3]) for n in range(50))
    told = Device("d-1-\U0001f680", 1.0, 9.0, report_seq=4, reported_at=9.0, accepted=1, digest="x", satisfied=7)
    command = CommandRecord("c", "d", "rescan", (), "failed", "", (), "op", "", False, 1.0, 2.0, 3.0)
    entries = [
        AuditEntry(AuditKind.DEVICE_ONLINE, "d", "t", "c", {"ä": [1, None, 2.5]}, alert=n == 1) for n in range(9)
    ]
    await store.commit(
        StoreWrites(
            devices=devices,
            audit=tuple((float(n), entry) for n, entry in enumerate(entries)),
            effects=(EndIsolation("e1", "d", "c"), EndIsolation("e2", "d", "c")),
            commands=(command,),
            dead=(DeadLetter(1.0, "", "t", "r", "", 1, b"\0x"),),
            charges=(("", "d", 1.0), ("op", "d", 2.0)),
        )
    )
    await store.commit(StoreWrites(reports=(StoredReport(told, b'{"a":"\xc3\xa4"}'),), done=("e1",)))
    await store.keep_rules("d", "c", (AccessRule("a/#", "allow", "all"),), 1.0)
    await store.accept_policies("v1")
    one = Certificate("1", "b2", CertificateKind.CLIENT, "d", NOW, NOW + 100, NOW, "token:t1", "key", "pem")
    await SqlCertificateRegistry(store).add(one)
    await SqlCertificateRegistry(store).add_token(EnrolmentToken("t1", "aa", 1, NOW, NOW + 10, "operator:ada"), 9)
    await SqlAccounts(store).add_account(Account("a1", "Ada", "admin", NOW), StoreWrites())
    await SqlFactors(store).add_passkey(Passkey("a1", b"\1", b"\2", 0, "key", NOW, NOW), StoreWrites())


async def state(store: SqlStore) -> list[object]:
    registry = SqlCertificateRegistry(store)
    return [
        await stored_devices(store),
        await store.reports("", 100),
        await store.audit(newest_first=False),
        await store.effects(),
        await store.commands(),
        await store.dead_letters(),
        await store.guard_books(),
        await store.kept_rules("d", "c"),
        await store.accepted_policies(),
        await registry.certificates(),
        await registry.tokens(),
        await SqlAccounts(store).overviews(),
        await SqlFactors(store).factors("a1"),
        (await store.audit_heads()).chains[1],
    ]


def copy(source: object, target: object) -> None:
    copy_store(source, target, lambda _table, _rows: None)  # type: ignore[arg-type]


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    async with opened(tmp_path / "store.db") as store:
        await fill(store)
    return tmp_path / "store.db"


async def test_a_store_is_the_same_on_the_other_engine_and_back_again(
    filled: Path, tmp_path: Path, server: PostgresServer
) -> None:
    async with opened(filled) as store:
        before = await state(store)
    address = address_of(server.url(server.new_database()))
    copy(filled, address)
    database = await open_postgres(address, name="tests", now=lambda: NOW, log=Logged())
    try:
        assert await state(database) == before
        assert (await database.check_audit()).is_intact
        # Numbers go on after those that were copied.
        again = Device("d-1-\U0001f680", 1.0, 12.0)
        entry = (12.0, AuditEntry(AuditKind.DEVICE_OFFLINE, "d", "t"))
        await database.commit(StoreWrites(devices=(again,), audit=(entry,), effects=(EndIsolation("e3", "d", "c"),)))
        assert [one.effect_id for one in await database.effects()] == ["e2", "e3"]
        after = await state(database)
        with pytest.raises(StoreError, match="in use by the controller tests"):
            copy(address, tmp_path / "back.db")
    finally:
        await database.close()
    copy(address, tmp_path / "back.db")
    async with opened(tmp_path / "back.db") as store:
        assert isinstance(store, SqliteStore)
        assert await state(store) == after
        assert (await store.check_audit()).is_intact
    assert (tmp_path / "back.db").stat().st_mode & 0o777 == 0o600


async def test_chains_of_several_writers_are_copied_with_their_anchors(tmp_path: Path, server: PostgresServer) -> None:
    first, second = (address_of(server.url(server.new_database())) for _ in range(2))
    database = await open_postgres(first, name="tests", now=lambda: NOW, log=Logged())
    await four_chains(database)
    await database.close()
    copy(first, tmp_path / "file.db")
    async with opened(tmp_path / "file.db") as store:
        heads, lines = await store.audit_heads(), await store.audit(newest_first=False)
        assert [str(one.id) for one in lines][:4] == ["11-1", "11-2", "11-3", "12-1"]
        assert heads.chains[14].seq == 3
        await store.commit(StoreWrites(audit=((NOW, AuditEntry(AuditKind.DEVICE_OFFLINE, "d", "t")),)))
        assert str((await store.audit(limit=1))[0].id) == "1-1", "a file has one writer"
        assert (await store.check_audit(heads)).is_intact
    copy(tmp_path / "file.db", second)
    again = await open_postgres(second, name="tests", now=lambda: NOW, log=Logged())
    try:
        assert (await again.check_audit(heads)).is_intact
        await again.commit(StoreWrites(audit=((NOW + 1, AuditEntry(AuditKind.DEVICE_ONLINE, "d", "t")),)))
        assert str((await again.audit(limit=1))[0].id) == "15-1", "a run has a number that no other had"
        assert (await again.check_audit(heads)).is_intact
    finally:
        await again.close()


async def test_nothing_is_copied_over_what_is_there(filled: Path, tmp_path: Path, server: PostgresServer) -> None:
    address = address_of(server.url(server.new_database()))
    copy(filled, address)
    with pytest.raises(StoreError, match=r"has rows already \(in devices\)"):
        copy(filled, address)
    (tmp_path / "there.db").touch()
    with pytest.raises(StoreError, match="exists already"):
        copy(address, tmp_path / "there.db")
    async with opened(tmp_path / "other.db"):
        pass
    with pytest.raises(StoreError, match="no store of Cordon's yet"):
        copy(address_of(server.url(server.new_database())), tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


async def test_a_copy_that_fails_leaves_nothing_behind(filled: Path, tmp_path: Path, server: PostgresServer) -> None:
    with contextlib.closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute("UPDATE audit SET actor = 'eve' WHERE id = ?", (SECOND,))
    name = server.new_database()
    with pytest.raises(StoreError, match="not as it was written: row 1-2 was changed"):
        copy(filled, address_of(server.url(name)))
    assert server.query(name, "SELECT count(*) FROM devices") == [(0,)]
    with contextlib.closing(sqlite3.connect(filled)) as connection, connection:
        connection.execute("UPDATE audit SET actor = 't' WHERE id = ?", (SECOND,))
        connection.execute("CREATE TABLE later (key TEXT)")
    with pytest.raises(StoreError, match="no tables yet for: later"):
        copy(filled, address_of(server.url(name)))


def test_every_table_and_column_of_one_engine_is_on_the_other_and_is_copied(server: PostgresServer) -> None:
    memory = sqlite3.connect(":memory:", isolation_level=None)
    migrations.apply(sqlite_utils.Database(memory))
    names = [name for (name,) in memory.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    own = {"devices", "reports", "sqlite_sequence", "_sqlite_migrations"}
    own |= {"device_facets", "device_findings", "device_tags"}  # derived by triggers
    ours = {name: {row[1] for row in memory.execute(f"PRAGMA table_info({name})")} for name in names if name not in own}
    memory.close()
    ours["access_grants"].add("rowid")
    assert {name: set(columns) for name, columns in TABLES.items()} == ours
    database = server.new_database()
    connection = connect(address_of(server.url(database)), "tests")
    prepare(connection, "tests")
    connection.close()
    columns = server.query(
        database, "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    )
    theirs = {name: {column for table, column in columns if table == name} for name in ours}
    extra = {"outbox": {"bucket", "device_id"}}
    assert {name: found - extra.get(name, set()) for name, found in theirs.items()} == ours
