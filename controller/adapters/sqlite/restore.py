"""Backup and restore of the file, without a running controller."""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from controller.adapters.files import as_owner, give_name, save_file, sync_folder
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.errors import as_store_error
from controller.adapters.sqlite.lock import hold_store, lock_path
from controller.adapters.sqlite.schema import APPLICATION_ID, FILE_MODE, connect
from controller.ports.errors import StoreError
from schemas.safe_files import lacks_links


def copy_to(connection: sqlite3.Connection, target: Path) -> None:
    """Copies the database to `target`, which appears under its name only when it is wholly on disk.

    Raises:
        StoreError: `target` exists, or cannot be written.
    """
    if target.exists():
        raise StoreError(f"cannot back up to {target}: it exists already")
    partly = target.with_name(f"{target.name}.part")
    try:
        # Created first, so that others can never read it; SQLite fills an empty file.
        handle = os.open(partly, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE)
    except OSError as error:
        raise StoreError(f"cannot back up to {target}: {error}") from error
    try:
        connection.execute("VACUUM INTO ?", (str(partly),))
        os.fsync(handle)
        give_name(partly, target)
        sync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise as_store_error(error, f"cannot back up to {target}") from error
    finally:
        os.close(handle)
        partly.unlink(missing_ok=True)


_PATIENT: Final = StoreOptions(lock_wait_seconds=30.0)  # no request waits for a backup
_SHOWN_PROBLEMS: Final = 3
_PRIMARY: Final = 0xFF  # of an extended result code
_UNWRITABLE: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})


def back_up_file(path: Path, target: Path) -> int:
    """Copies the store at `path` to `target` (mode 0600), also while a controller writes; returns the size in bytes.

    The copy is verified, and removed if that fails. As root, it belongs to the owner of its folder.

    Raises:
        StoreError: no store there, `target` exists or cannot be written, the store is damaged.
    """
    target = target.absolute()
    try:
        with opened(path) as connection, as_owner(target.parent):
            copy_to(connection, target)
            try:
                verify(target)
            except StoreError:
                target.unlink()
                raise
            return target.stat().st_size
    except OSError as e:
        raise StoreError(f"cannot back up to {target}: {e.strerror}") from e


def verify(path: Path) -> None:
    """Checks that the file is an intact store of this version.

    Raises:
        StoreError: it cannot be read, is damaged, or is of another program or another version.
    """
    with opened(path) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise StoreError(f"{path} is no store of Cordon's")
        problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check").fetchmany(_SHOWN_PROBLEMS)]
    if problems != ["ok"]:
        raise StoreError(f"{path} is damaged: {'; '.join(' '.join(one.split()) for one in problems)}")


def restore_file(source: Path, path: Path, now: float) -> Path | None:
    """Replaces the store at `path` by the verified backup `source`; returns the new path of the old store, if any.

    As root, works with the rights of the owner of the folder. `now` (Unix seconds) is part of the old store's new name.
    At every moment `path` is a whole store, or absent if it was absent before.

    Raises:
        StoreError: a controller is running, the backup is invalid, a file cannot be written; nothing was replaced.
    """
    verify(source)
    try:
        # The backup is open before the rights go; the owner of the folder may not be able to read it.
        with opened(source) as backup, as_owner(path.absolute().parent):
            return _restore(backup, path.resolve(), now)
    except OSError as e:
        raise StoreError(f"cannot restore to {path}: {e.strerror}") from e


def _restore(backup: sqlite3.Connection, path: Path, now: float) -> Path | None:
    with hold_store(path):
        fresh = path.with_name(f"{path.name}.restored")
        fresh.unlink(missing_ok=True)  # left by an interrupted attempt
        copy_to(backup, fresh)
        try:
            verify(fresh)
            return _replace(fresh, path, now)
        finally:
            fresh.unlink(missing_ok=True)


def _replace(fresh: Path, path: Path, now: float) -> Path | None:
    aside = None
    log = path.with_name(f"{path.name}-wal")
    if path.exists():
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = path.with_name(f"{path.name}.before-{moment}")
        _keep_as(path, aside)
        if log.exists() and log.stat().st_size:
            # What the old store had not copied into itself yet goes with it; under the old name SQLite would play it
            # into the new one.
            log.rename(aside.with_name(f"{aside.name}-wal"))
    log.unlink(missing_ok=True)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    fresh.replace(path)
    sync_folder(path.parent)
    return aside


def _keep_as(path: Path, aside: Path) -> None:
    """Gives the store a second name; where the file system has no hard links, copies it."""
    try:
        os.link(path, aside)
    except OSError as e:
        if not lacks_links(e):
            raise
        with path.open("rb") as file:
            save_file(aside, lambda copy: shutil.copyfileobj(file, copy), FILE_MODE, replace=False)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a store to read it, also one that cannot be written, such as on a file system that went read-only.

    Raises:
        StoreError: no store there, it cannot be read, or a controller uses it and this user may not write beside it.
    """
    if not path.is_file():
        raise StoreError(f"there is no store at {path}")
    path = path.absolute()
    with ExitStack() as stack:
        try:
            with as_owner(path):  # SQLite opens the log beside it too, by its name
                connection = connect(path, _PATIENT, read_only=True)
        except sqlite3.Error as e:
            # SQLite wants to write files beside it.
            if e.sqlite_errorcode & _PRIMARY not in _UNWRITABLE or not is_at_rest(path, stack):
                raise as_store_error(e, f"cannot read {path}") from e
            with as_owner(path):
                connection = _connect_unwritable(path, stack)
        except OSError as e:
            raise StoreError(f"cannot read {path}: {e.strerror}") from e
        stack.callback(connection.close)
        try:
            yield connection
        except sqlite3.Error as e:
            raise as_store_error(e, f"cannot read {path}") from e


def is_at_rest(path: Path, stack: ExitStack) -> bool:
    """Whether nobody writes the store while `stack` is open: the file system forbids it, or no controller runs."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return True
    try:
        descriptor = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _connect_unwritable(path: Path, stack: ExitStack) -> sqlite3.Connection:
    log = path.with_name(f"{path.name}-wal")
    try:
        if not log.exists() or not log.stat().st_size:
            return connect(path, _PATIENT, read_only=True, is_immutable=True)
        # The log has commits that the file has not: SQLite reads both only where it can write beside them.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="cordon-")))
        for file in (path, log):
            shutil.copyfile(file, folder / file.name)
        return connect(folder / path.name, _PATIENT, read_only=True)
    except sqlite3.Error as e:
        raise as_store_error(e, f"cannot read {path}") from e
    except OSError as e:
        raise StoreError(f"cannot read {path}: {e.strerror}") from e
