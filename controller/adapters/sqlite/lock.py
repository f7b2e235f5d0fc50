"""One controller for one store: two would each believe their own memory and undo the other's containments."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from controller.adapters.sqlite.schema import FILE_MODE
from controller.ports.errors import StoreError


def give_to_owner(path: Path) -> None:
    """As root, give the file to whom its folder belongs: a service of another user has to work with it afterwards.

    Raises:
        OSError: not possible.
    """
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


def lock_path(path: Path) -> Path:
    """Where the lock of the store at `path` lies: beside it, whatever way the path is written."""
    store = path.resolve()
    return store.with_name(f"{store.name}.lock")


@contextlib.contextmanager
def hold_store(path: Path) -> Iterator[None]:
    """Hold the store for this process; the system lets go of it however the process ends.

    The lock's file stays: were it removed, two processes could hold two files of the same name.

    Raises:
        StoreError: another process holds it, or the lock's file cannot be made.
    """
    beside = lock_path(path)
    try:
        descriptor = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
    except OSError as e:
        raise StoreError(f"cannot lock the store {path}: {beside}: {e.strerror}") from e
    try:
        try:
            give_to_owner(beside)
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
