"""A copy of the store that is whole or absent, made beside the running store."""

import os
import sqlite3
from pathlib import Path

from controller.adapters.sqlite.schema import FILE_MODE, sync_folder
from controller.adapters.sqlite.trouble import as_store_error
from controller.ports.errors import StoreError


def copy_to(connection: sqlite3.Connection, target: Path) -> None:
    """Copy what the connection sees to `target`, which appears under its name only when all of it is on disk.

    Raises:
        StoreError: `target` exists, or cannot be written.
    """
    if target.exists():
        raise StoreError(f"cannot back up to {target}: it exists already")
    partly = target.with_name(f"{target.name}.part")
    try:
        # Made first, so that there is no moment in which others may read it; SQLite fills an empty file.
        handle = os.open(partly, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE)
    except OSError as error:
        raise StoreError(f"cannot back up to {target}: {error}") from error
    try:
        connection.execute("VACUUM INTO ?", (str(partly),))
        os.fsync(handle)
        os.link(partly, target)  # unlike a rename, this never replaces a file that came meanwhile
        sync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise as_store_error(error, f"cannot back up to {target}") from error
    finally:
        os.close(handle)
        partly.unlink(missing_ok=True)
