import asyncio
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.migrations import KNOWN
from controller.cli.app import run_safely
from controller.domain.device import Device
from controller.ports.errors import StoreError
from controller.ports.store import ApiToken
from tests.support.fleet_devices import stored_devices
from tests.support.store import child, kept, line, lock_held, names_in, opened, read_line


def _allow(path: Path, mode: int) -> None:
    path.chmod(mode)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    _allow(folder, 0o755)
    shutil.rmtree(folder)


async def test_what_was_kept_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.commit(line("a"))
        await store.put_token(ApiToken("t", "0" * 64, 1.0))
    async with opened(path) as store:
        assert await stored_devices(store) == [Device("a", 1.0, 2.0)]
        assert await store.tokens() == [ApiToken("t", "0" * 64, 1.0)]
        await store.commit(line("b"))
    assert kept(path) == ["a", "b"]
    assert names_in(tmp_path) == ["store.db"]  # the log was folded in


async def test_nobody_else_may_read_any_of_its_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path / "store.db") as store:
            await store.commit(line("a"))
            found = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names_in(tmp_path)}
    finally:
        os.umask(before)
    assert found == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), 0o600)


async def test_a_confirmed_commit_is_on_disk_and_not_on_its_way(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        connection = store._writer._connection
        assert connection is not None
        found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert found == {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL


async def test_two_that_open_a_new_store_at_once_both_find_it_ready(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def use(name: str) -> None:
        async with opened(path, StoreOptions()) as store:
            await store.commit(line(name))

    await asyncio.gather(*(use(name) for name in "abcd"))
    assert sorted(kept(path)) == ["a", "b", "c", "d"]


async def test_a_name_with_signs_of_an_address_is_only_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#%41 b.db"
    async with opened(path) as store:
        await store.commit(line("a"))
    assert kept(path) == ["a"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent/store.db", "there is no folder"), (".", "not a file")],
)
async def test_a_place_where_no_store_can_be(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        async with opened(tmp_path / name):
            pass


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a database"):
        async with opened(path):
            pass
    assert path.read_bytes() == before


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        async with opened(path):
            pass
    assert path.read_bytes() == before


@pytest.fixture
def development_folder(tmp_path: Path) -> Path:
    """What `cordon init` makes, with a store as versions before the first release wrote it."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    folder = tmp_path / "conf"
    given = ["--emqx-key", "key", "--emqx-secret-file", str(secret), "--listen", "127.0.0.1:0"]
    assert run_safely(["init", "--dir", str(folder), "--no-broker", *given]) == 0
    connection = sqlite3.connect(folder / "cordon.db")
    with connection:
        connection.execute("DELETE FROM _sqlite_migrations")
        connection.executemany(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('cordon', ?, '')",
            [("m0001_first",), ("m0006b_audit_chain",)],
        )
    connection.close()
    return folder


@pytest.mark.parametrize(
    "argv",
    [
        ["serve", "--config", "{}/cordon.toml"],
        ["init", "--dir", "{}", "--no-broker"],
        ["backup", "{}/copy.db", "--config", "{}/cordon.toml"],
        ["restore", "{}/cordon.db", "--config", "{}/cordon.toml"],
    ],
    ids=lambda argv: str(argv[0]),
)
def test_store_of_a_development_version_is_refused(
    development_folder: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = development_folder / "cordon.db"
    before = path.read_bytes()
    assert run_safely([argument.format(development_folder) for argument in argv]) == 1
    assert capsys.readouterr().err == (
        f"cordon: {path} was written by a development version of Cordon from before its first release: "
        "it cannot be converted; move it away and run `cordon init`\n"
    )
    assert path.read_bytes() == before
    assert not (development_folder / "copy.db").exists()


async def test_a_store_whose_tables_differ_is_refused(tmp_path: Path) -> None:
    """Development versions change the one migration in place."""
    path = tmp_path / "store.db"
    async with opened(path):
        pass
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE meta SET value = 'another' WHERE key = 'schema.form'")
    connection.close()
    with pytest.raises(StoreError, match="development version of Cordon"):
        async with opened(path):
            pass


def test_the_schema_begins_with_one_migration() -> None:
    """Later versions of a store are released: their migrations stay as they are."""
    assert min(KNOWN) == "m0001_initial"


async def test_a_newer_versions_store_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('cordon', 'm9999_later', '')"
        )
    connection.close()
    with pytest.raises(StoreError, match=r"newer version of Cordon \(it has m9999_later\): start that version"):
        async with opened(path):
            pass


async def test_a_store_locked_by_another_process_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path):
        pass
    async with lock_held(path):
        with pytest.raises(StoreError, match="locked by another process"):
            async with opened(path):
                pass


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o755), (0o666, 0o555)])
async def test_a_store_that_may_not_be_written_says_so(open_folder: Path, file_mode: int, folder_mode: int) -> None:
    path = open_folder / "store.db"
    async with opened(path):
        pass
    _allow(path, file_mode)
    _allow(open_folder, folder_mode)
    async with child("-m", "tests.integration.store.child", "open", str(path)) as process:
        said = await read_line(process)
    assert said.startswith(f"cannot open the store {path}: ")
    assert "not writable" in said or "cannot be opened" in said


async def test_a_folder_that_may_not_be_written_says_so(open_folder: Path) -> None:
    _allow(open_folder, 0o555)
    async with child("-m", "tests.integration.store.child", "open", str(open_folder / "store.db")) as process:
        said = await read_line(process)
    assert "Permission denied" in said
