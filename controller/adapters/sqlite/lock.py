"""Locks the store for one controller: two would undo each other's containments."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from controller.adapters.sqlite.schema import FILE_MODE
from controller.ports.errors import StoreError
from schemas.safe_files import open_own, opened_folder


def lock_path(path: Path) -> Path:
    """Returns the path of the lock file, in the folder of the resolved `path`."""
    store = path.resolve()
    return store.with_name(f"{store.name}.lock")


@contextlib.contextmanager
def hold_store(path: Path) -> Iterator[None]:
    """Locks the store for this process; the system releases the lock when the process ends.

    The lock file is never removed: two processes could then lock two files of the same name.

    Raises:
        StoreError: another process has the lock, or the lock file cannot be created, is a link or has several names.
    """
    beside = lock_path(path)
    try:
        with opened_folder(beside.parent) as folder:
            descriptor = open_own(folder, beside.name, FILE_MODE)
    except OSError as e:
        raise StoreError(f"cannot lock the store {path}: {beside}: {e.strerror}") from e
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise StoreError(
                f"the store {path} is in use by another `cordon serve` (or `cordon restore`): stop that one first"
            ) from e
        except OSError as e:
            raise StoreError(f"cannot lock the store {path}: {e.strerror}") from e
        yield
    finally:
        os.close(descriptor)
