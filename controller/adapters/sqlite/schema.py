"""Opens and migrates the file of the store; the only module with pragmas.

Every change of a table or of the JSON in a column is a new migration, so that an older version refuses a newer file.
"""

import os
import sqlite3
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

import sqlite_utils

from controller.adapters.files import sync_folder
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.errors import as_store_error
from controller.adapters.sqlite.migrations import KNOWN, migrations
from controller.adapters.sqlite.migrations.m0001_initial import FORM, FORM_KEY
from controller.ports.errors import StoreError

APPLICATION_ID: Final = 0x43_4F_52_44  # "CORD" in the file's header: tells our file from any other SQLite database
FILE_MODE: Final = 0o600  # SQLite creates its other files with the same mode
_WRITER_CACHE_KIB: Final = 64 * 1024
_READER_CACHE_KIB: Final = 16 * 1024
_STATEMENTS: Final = 128  # prepared statements per connection
_LOG_ATTEMPTS: Final = 100
_LOG_PAUSE: Final = 0.02  # seconds
_UNRELEASED: Final = "m0001_first"  # the first migration of development versions


def connect(path: Path, options: StoreOptions, *, read_only: bool, is_immutable: bool = False) -> sqlite3.Connection:
    """Opens an existing file; the connection may move between threads, but only one may use it at a time.

    `is_immutable`: nobody can write it, so that it is read without locks and without files beside it.

    Raises:
        sqlite3.Error: the file does not exist or cannot be opened.
        StoreError: a database of another program or of another version; it was not changed.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'ro' if read_only else 'rw'}{'&immutable=1' if is_immutable else ''}",
        uri=True,
        timeout=options.lock_wait_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )
    try:
        _check_origin(connection, path)
        connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB if read_only else _WRITER_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        if not read_only:
            _prepare_for_writing(connection, options)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare_for_writing(connection: sqlite3.Connection, options: StoreOptions) -> None:
    _use_log(connection)
    connection.execute("PRAGMA synchronous = FULL")  # a confirmed commit survives a power loss
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(
        "PRAGMA secure_delete = FAST"
    )  # some builds overwrite every freed page, which doubles the writes
    connection.execute(f"PRAGMA wal_autocheckpoint = {options.checkpoint_pages}")
    connection.execute(f"PRAGMA journal_size_limit = {options.max_log_bytes}")


def _use_log(connection: sqlite3.Connection) -> None:
    """Switches to a write-ahead log; for this statement SQLite does not wait for a lock."""
    for _ in range(_LOG_ATTEMPTS - 1):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_LOG_PAUSE)
        else:
            return
    connection.execute("PRAGMA journal_mode = WAL")


def prepare(path: Path, options: StoreOptions) -> sqlite3.Connection:
    """Creates the file if it is absent, migrates it, and returns the connection of the writer.

    Raises:
        StoreError: no such folder, a file of another program or of another version, not writable, locked.
    """
    try:
        _make_file(path)
        connection = connect(path, options, read_only=False)
    except (OSError, sqlite3.Error) as error:
        raise as_store_error(error, f"cannot open the store {path}") from error
    try:
        _bring_up_to_date(connection)
    except sqlite3.Error as error:
        connection.close()
        raise as_store_error(error, f"cannot open the store {path}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _make_file(path: Path) -> None:
    if not path.parent.is_dir():
        raise StoreError(f"cannot open the store {path}: there is no folder {path.parent}")
    try:
        # Created before SQLite opens it, so that others can never read it.
        made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE)
    except FileExistsError:
        if not path.is_file():
            raise StoreError(f"cannot open the store {path}: it is not a file") from None
    else:
        os.close(made)
        sync_folder(path.parent)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    database = sqlite_utils.Database(connection, execute_plugins=False)
    # The lock comes first, so that two starts at once do not both migrate.
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(database)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _has_our_form(connection: sqlite3.Connection) -> bool:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (FORM_KEY,)).fetchone()
    return row is not None and row[0] == FORM


def _check_origin(connection: sqlite3.Connection, path: Path) -> None:
    """Refuses files of other programs and of other versions."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program; Cordon leaves it alone")
    found = migrations.applied(sqlite_utils.Database(connection, execute_plugins=False))
    newer = [migration.name for migration in found if migration.name not in KNOWN]
    if _UNRELEASED in newer or (found and not newer and not _has_our_form(connection)):
        raise StoreError(
            f"{path} was written by a development version of Cordon from before its first release: "
            "it cannot be converted; move it away and run `cordon init`"
        )
    if newer:
        raise StoreError(
            f"{path} was written by a newer version of Cordon (it has {', '.join(newer)}): "
            "start that version, or go back to a backup made before the update"
        )
