"""Databases that Cordon creates, migrates, or leaves alone."""

from collections.abc import Sequence

import pytest

from controller.adapters.postgres import registration, schema
from controller.adapters.postgres.audit_chain import WritingConnection
from controller.adapters.postgres.connection import PostgresConnection, connect
from controller.adapters.postgres.migrations import STEPS, Step
from controller.adapters.postgres.store import open_store
from controller.ports.errors import StoreError
from tests.support.postgres import PostgresServer, address_of
from tests.support.store import NOW, Logged, line

pytestmark = pytest.mark.postgres
SECOND = Step(
    expand=("ALTER TABLE waivers ADD COLUMN reason text",), contract=("ALTER TABLE waivers DROP COLUMN expires_at",)
)


def _start(server: PostgresServer, database: str, steps: Sequence[Step]) -> tuple[WritingConnection, int]:
    """A controller of a version with these steps."""
    connection = WritingConnection(connect(address_of(server.url(database)), "tests"))
    try:
        schema.prepare(connection, "here", steps)
        return connection, registration.register(connection, "here", "tests", steps=steps).writer
    except BaseException:
        connection.close()
        raise


def _columns(server: PostgresServer, database: str) -> set[str]:
    found = server.query(database, "SELECT column_name FROM information_schema.columns WHERE table_name = 'waivers'")
    return {name for (name,) in found}


async def _open(server: PostgresServer, database: str) -> None:
    store = await open_store(address_of(server.url(database)), name="tests", now=lambda: NOW, log=Logged())
    await store.commit(line("a"))
    await store.close()


async def test_a_newer_version_extends_the_tables_first_and_drops_what_was_when_no_older_one_is_left(
    server: PostgresServer,
) -> None:
    database = server.new_database()
    old, number = _start(server, database, STEPS)
    assert _columns(server, database) == {"waiver_id", "expires_at", "body"}
    # The new version extends the tables while the old one runs, which goes on.
    with connect_new(server, database) as connection:
        schema.prepare(connection, "here", (*STEPS, SECOND))
        with registration.alone(connection):
            schema.raise_write_level(connection, (*STEPS, SECOND))
    assert _columns(server, database) == {"waiver_id", "expires_at", "body", "reason"}
    assert registration.renew(old, number, 0.0) is not None
    registration.release(old, number)
    old.close()
    await _open(server, database)  # an older version may still start again
    # Only the new version is left: it writes in its form, and the old column goes.
    new, number = _start(server, database, (*STEPS, SECOND))
    assert _columns(server, database) == {"waiver_id", "body", "reason"}
    registration.release(new, number)
    new.close()
    with pytest.raises(StoreError, match=r"newer version of Cordon \(form 2, this one knows 1\)"):
        await _open(server, database)


class connect_new:  # noqa: N801 - reads as a function
    def __init__(self, server: PostgresServer, database: str) -> None:
        self._connection = connect(address_of(server.url(database)), "tests")

    def __enter__(self) -> PostgresConnection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE orders (id integer)", "tables of another program"),
        ("CREATE TABLE fleet (ship text)", "of another program"),
    ],
)
async def test_a_database_of_another_program_is_left_alone(server: PostgresServer, statement: str, words: str) -> None:
    database = server.new_database()
    server.query(database, statement)
    with pytest.raises(StoreError, match=words):
        await _open(server, database)
    tables = server.query(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    assert tables == [(1,)]


async def test_a_server_that_would_lose_commits_is_refused(server: PostgresServer) -> None:
    database = server.new_database()
    server.query(database, "ALTER SYSTEM SET fsync = off")
    server.query(database, "SELECT pg_reload_conf()")
    try:
        with pytest.raises(StoreError, match="fsync = off"):
            await _until_reloaded(server, database)
    finally:
        server.query(database, "ALTER SYSTEM RESET fsync")
        server.query(database, "SELECT pg_reload_conf()")
    server.query(database, f"ALTER DATABASE {database} SET synchronous_commit = off")
    await _open(server, database)  # sets it for its connections
    server.query("postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(StoreError, match="encoding LATIN1"):
        await _open(server, "latin")
    server.query("postgres", "DROP DATABASE latin")


async def _until_reloaded(server: PostgresServer, database: str) -> None:
    while True:
        await _open(server, database)


async def test_what_cannot_be_reached_says_why(server: PostgresServer) -> None:
    with pytest.raises(StoreError, match=r"no connection to PostgreSQL .*does not exist"):
        await _open(server, "absent")
    server.query("postgres", "CREATE ROLE stranger LOGIN")
    database = server.new_database()
    url = server.url(database).replace("cordon@", "stranger@")
    with pytest.raises(StoreError, match="access denied"):
        await open_store(address_of(url), name="tests", now=lambda: NOW, log=Logged())
    server.query("postgres", "DROP ROLE stranger")
